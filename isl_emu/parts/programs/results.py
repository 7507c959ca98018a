"""The tables of a user's programs and workloads, and their section of the summary."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from isl_emu.show.chapter import Chapter, DataTable
from isl_emu.tables.schema import COUNT, NAME, NS, PATH, TEXT, column, schema
from isl_emu.tables.text import counted, table, time_text

Rows = Sequence[Mapping[str, Any]]

PROGRAMS = schema(
    column("name", TEXT, "", "name of the program in the scenario"),
    column("node", TEXT, "", "node in which it ran"),
    column("command", PATH, "", "what was run, word by word"),
    column("t_start_ns", NS, "ns", "when it was started; null if the run ended first"),
    column("t_end_ns", NS, "ns", "when it had ended"),
    column("status", COUNT, "", "its exit status, negative for a signal; null if it was never started"),
    column("outcome", TEXT, "", "ended, ended by isl-emu, killed by a fault, cannot be started or not started"),
)
PROGRAM_CPU = schema(
    column("node", NAME, "", "node whose programs and workloads computed"),
    column("t_ns", NS, "ns", "end of the interval; there is no row where they did not compute"),
    column("interval_ns", NS, "ns", "length of the interval"),
    column("cpu_ns", NS, "ns", "CPU time that they took in it, all together; in slow motion more than fits into it"),
)


PROGRAMS_HEADER = ("name", "node", "began", "ran for", "end")


def programs_section(programs: Rows, rows_by_workload: Mapping[str, int]) -> Iterator[str]:
    """What became of each program, and how much each workload recorded."""
    yield "PROGRAMS AND WORKLOADS"
    yield from table(PROGRAMS_HEADER, _lines(programs, rows_by_workload), left=5)


def programs_chapter(programs: Rows, rows_by_workload: Mapping[str, int]) -> Iterator[Chapter]:
    """Nothing for a run with neither."""
    if lines := _lines(programs, rows_by_workload):
        caption = "What became of each program, and how much each workload recorded"
        yield Chapter("Programs and workloads", [DataTable(caption, PROGRAMS_HEADER, lines, left=5)])


def _lines(programs: Rows, rows_by_workload: Mapping[str, int]) -> list[tuple[str, ...]]:
    lines = [_line(program) for program in sorted(programs, key=lambda program: program["name"])]
    for name, rows in rows_by_workload.items():
        lines.append((name, "", "", "", f"workload, {counted(rows, 'row')}" + (f" in {name}.parquet" if rows else "")))
    return lines


def _line(program: Mapping[str, Any]) -> tuple[str, ...]:
    begun_ns = program["t_start_ns"]
    ran = "-" if begun_ns is None else time_text(program["t_end_ns"] - begun_ns)
    status = "" if program["status"] is None else f", status {program['status']}"
    return program["name"], program["node"], time_text(begun_ns), ran, f"{program['outcome']}{status}"
