"""The tables of a user's programs and workloads, and their section of the summary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from isl_emu.scenario.programs import Program
from isl_emu.show.chapter import Chapter, DataTable
from isl_emu.tables.schema import COUNT, NAME, NS, PATH, TEXT, column, schema
from isl_emu.tables.text import counted, table, time_text

Rows = Sequence[Mapping[str, Any]]

PROGRAMS = schema(
    column("name", TEXT, "", "name of the program in the scenario"),
    column("node", TEXT, "", "node in which it ran"),
    column("command", PATH, "", "what was run, word by word"),
    column("t_start_ns", NS, "ns", "when it was started; null if it was not"),
    column("t_due_ns", NS, "ns", "when it was to start: by time, or by what the plan held for its node then"),
    column(
        "occasion",
        TEXT,
        "",
        "what it waited for: contact-begins, contact-ends, handover, fault or step; else null",
    ),
    column("about", TEXT, "", "the node at the other end of that contact, or the fault's name; else null"),
    column("t_end_ns", NS, "ns", "when it had ended"),
    column("status", COUNT, "", "its exit status, negative for a signal; null if it was never started"),
    column(
        "outcome",
        TEXT,
        "",
        "ended, ended by isl-emu, killed by a fault, cannot be started, not started or still running",
    ),
)
PROGRAM_CPU = schema(
    column("node", NAME, "", "node whose programs and workloads computed"),
    column("t_ns", NS, "ns", "end of the interval; there is no row where they did not compute"),
    column("interval_ns", NS, "ns", "length of the interval"),
    column("cpu_ns", NS, "ns", "CPU time that they took in it, all together; in slow motion more than fits into it"),
)


PROGRAMS_HEADER = ("name", "node", "began", "ran for", "end")


def programs_section(programs: Sequence[Program], rows: Rows, rows_by_workload: Mapping[str, int]) -> Iterator[str]:
    """What became of each program, and how much each workload recorded."""
    yield "PROGRAMS AND WORKLOADS"
    yield from table(PROGRAMS_HEADER, _lines(programs, rows, rows_by_workload), left=5)


def programs_chapter(programs: Sequence[Program], rows: Rows, rows_by_workload: Mapping[str, int]) -> Iterator[Chapter]:
    """Nothing for a run with neither."""
    if lines := _lines(programs, rows, rows_by_workload):
        caption = "What became of each program, and how much each workload recorded"
        yield Chapter("Programs and workloads", [DataTable(caption, PROGRAMS_HEADER, lines, left=5)])


def _lines(programs: Sequence[Program], rows: Rows, rows_by_workload: Mapping[str, int]) -> list[tuple[str, ...]]:
    by_name: dict[str, list[Mapping[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: (row["name"], row["t_due_ns"])):
        by_name.setdefault(row["name"], []).append(row)
    lines = [_line(own[0]) if len(own) == 1 else _line_of_many(own) for own in by_name.values()]
    for program in programs:
        if program.on and program.name not in by_name:
            lines.append((program.name, program.node, "-", "-", f"was never due: {program.awaited} did not come"))
    for name, count in rows_by_workload.items():
        lines.append(
            (name, "", "", "", f"workload, {counted(count, 'row')}" + (f" in {name}.parquet" if count else ""))
        )
    return lines


def _line(program: Mapping[str, Any]) -> tuple[str, ...]:
    begun_ns = program["t_start_ns"]
    ran = "-" if begun_ns is None else time_text(program["t_end_ns"] - begun_ns)
    status = "" if program["status"] is None else f", status {program['status']}"
    return program["name"], program["node"], time_text(begun_ns), ran, f"{program['outcome']}{status}"


def _line_of_many(rows: Rows) -> tuple[str, ...]:
    """Of a program that was started, or due, several times: the first start, the time of all, and how they ended."""
    started = [row for row in rows if row["t_start_ns"] is not None]
    began = time_text(started[0]["t_start_ns"]) if started else "-"
    ran_ns = sum(row["t_end_ns"] - row["t_start_ns"] for row in started)
    ends = Counter(row["outcome"] if row["status"] in (None, 0) else "ended with an error" for row in rows)
    told = ", ".join(f"{count} {outcome}" for outcome, count in ends.most_common())
    return rows[0]["name"], rows[0]["node"], began, time_text(ran_ns), f"{counted(len(started), 'start')}: {told}"
