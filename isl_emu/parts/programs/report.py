"""The section on a user's programs and workloads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from isl_emu.tables.text import counted, table, time_text


def programs_section(programs: Sequence[Mapping[str, Any]], rows_by_workload: Mapping[str, int]) -> Iterator[str]:
    """What became of each program, and how much each workload recorded."""
    yield "PROGRAMS AND WORKLOADS"
    lines = [_line(program) for program in sorted(programs, key=lambda program: program["name"])]
    for name, rows in rows_by_workload.items():
        lines.append((name, "", "", "", f"workload, {counted(rows, 'row')}" + (f" in {name}.parquet" if rows else "")))
    yield from table(("name", "node", "began", "ran for", "end"), lines, left=5)


def _line(program: Mapping[str, Any]) -> tuple[str, ...]:
    begun_ns = program["t_start_ns"]
    ran = "-" if begun_ns is None else time_text(program["t_end_ns"] - begun_ns)
    status = "" if program["status"] is None else f", status {program['status']}"
    return program["name"], program["node"], time_text(begun_ns), ran, f"{program['outcome']}{status}"
