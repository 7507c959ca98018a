"""The section on gossip: how far each file came, and how soon."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from isl_emu.scenario.model import Scenario
from isl_emu.tables.distribution import Distribution
from isl_emu.tables.text import table, time_text


def gossip_section(scenario: Scenario, rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield "GOSSIP  (files that satellites passed on)"
    lines = []
    for number, group in enumerate(scenario.gossip):
        own = [row for row in rows if row["group"] == number]
        times = Distribution.of(row["t_end_ns"] for row in own)
        reached = f"{1 + len(own)} of {len(group.members(scenario.satellite_names))}"
        lines.append((group.source, f"{group.size_byte:,}", reached, time_text(times.p50), time_text(times.max)))
    yield from table(("from", "bytes", "satellites", "half by", "last at"), lines, left=1)
