"""What the plan says about each probe, and how far what was measured is from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from isl_emu.parts.finished_run import Row
from isl_emu.parts.probes.tables import FRAME_BYTE
from isl_emu.tables.planned_paths import PlannedPaths


def probe_row(record: Mapping[str, Any], paths: PlannedPaths) -> Row:
    """A journal's probe with what the plan says about its way at the time it was sent."""
    a, b, send_ns, delay_ns = record["a"], record["b"], record["t_send_ns"], record.get("delay_ns")
    k = paths.instant(send_ns)
    way, bounds = paths.at(a, b, k), paths.extent(a, b, k)
    row: Row = {**record, "path": paths.names(way), "hops": None if way is None else way.hops}
    expected_ns = 0
    if way and bounds:
        row["hops_least"], row["hops_most"] = bounds.hops_least, bounds.hops_most
        row["planned_delay_ns"], row["planned_delay_most_ns"] = bounds.delay_least_ns, bounds.delay_most_ns
        row["planned_serialisation_ns"] = paths.serialisation_ns(way, k, FRAME_BYTE)
        expected_ns = row["planned_delay_ns"] + row["planned_serialisation_ns"]
        spread_ns = bounds.delay_most_ns - bounds.delay_least_ns
        row["error_ns"] = None if delay_ns is None else _excess_ns(delay_ns - expected_ns, spread_ns)
    row["straddles_change"] = paths.straddles_change(a, b, send_ns, send_ns + (delay_ns or expected_ns))
    return row


def _excess_ns(excess_ns: int, spread_ns: int) -> int:
    """How far a delay is from those that are planned, which lie between 0 and `spread_ns`."""
    return excess_ns - min(max(excess_ns, 0), spread_ns)
