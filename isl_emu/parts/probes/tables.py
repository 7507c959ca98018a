"""The table of probes: what was measured, and what the plan says of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from isl_emu.parts.finished_run import Row
from isl_emu.tables.planned_paths import PlannedPaths
from isl_emu.tables.schema import COUNT, FLAG, NS, PATH, TEXT, column, schema

PAYLOAD_BYTE = 16
FRAME_BYTE = 14 + 20 + 8 + PAYLOAD_BYTE  # Ethernet, IPv4 and UDP headers before the payload

PROBES = schema(
    column("a", TEXT, "", "node that sends the probe"),
    column("b", TEXT, "", "node that receives it"),
    column("seq", COUNT, "", "number of the probe within its direction"),
    column("t_send_ns", NS, "ns", "when the first link got it"),
    column("delay_ns", NS, "ns", "measured one-way delay; null when lost (it did not arrive within 3 s)"),
    column("hops_seen", COUNT, "links", "links that it crossed, by its TTL"),
    column("path", PATH, "", "planned path from a to b when it was sent, node names; null when there was none"),
    column("hops", COUNT, "links", "links on path"),
    column("hops_least", COUNT, "links", "the fewest on any path that the probe may take (several by ecmp)"),
    column("hops_most", COUNT, "links", "the most"),
    column("planned_delay_ns", NS, "ns", "planned propagation delay of path when it was sent"),
    column("planned_delay_most_ns", NS, "ns", "the same of the longest path that the probe may take (ecmp)"),
    column("planned_serialisation_ns", NS, "ns", "time to put the probe on all links of path, at the shaped rates"),
    column("error_ns", NS, "ns", "delay - planned_delay - planned_serialisation; by ecmp 0 up to the longest path"),
    column("straddles_change", FLAG, "", "a change of its path was due or being applied while it was on its way"),
)


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
        if delay_ns is not None:  # how far it is from those that are planned, which lie in the spread
            excess_ns = delay_ns - expected_ns
            row["error_ns"] = excess_ns - min(max(excess_ns, 0), spread_ns)
    row["straddles_change"] = paths.straddles_change(a, b, send_ns, send_ns + (delay_ns or expected_ns))
    return row
