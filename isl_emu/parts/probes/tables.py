"""The table of probes."""

from __future__ import annotations

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
