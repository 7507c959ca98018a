"""The table of gossip, and its section of the summary: how far each file came, and how soon."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from isl_emu.scenario.model import Scenario
from isl_emu.tables.schema import COUNT, NAME, NS, column, schema
from isl_emu.tables.text import Distribution, table, time_text

GOSSIP = schema(
    column("group", COUNT, "", "number of the scenario's gossip table"),
    column("source", NAME, "", "satellite that passed the file on"),
    column("target", NAME, "", "satellite that got it, for the first time"),
    column("t_start_ns", NS, "ns", "when the source began to send it"),
    column("t_end_ns", NS, "ns", "when the target had all of it"),
    column("size_byte", NS, "byte", "length of the file"),
)


def gossip_section(scenario: Scenario, rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield "GOSSIP  (files that satellites passed on)"
    lines = []
    for number, group in enumerate(scenario.gossip):
        own = [row for row in rows if row["group"] == number]
        times = Distribution.of(row["t_end_ns"] for row in own)
        reached = f"{1 + len(own)} of {len(group.members(scenario.satellite_names))}"
        lines.append((group.source, f"{group.size_byte:,}", reached, time_text(times.p50), time_text(times.max)))
    yield from table(("from", "bytes", "satellites", "half by", "last at"), lines, left=1)
