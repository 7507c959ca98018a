"""The tables of a model's way into orbit."""

from __future__ import annotations

from isl_emu.tables.schema import COUNT, FLAG, NS, PATH, TEXT, column, schema

TRANSFERS = schema(
    column("source", TEXT, "", "node that sends"),
    column("destination", TEXT, "", "satellite that receives"),
    column("kind", TEXT, "", "uplink from a station; ring, tree or swarm between satellites"),
    column("t_start_ns", NS, "ns", "when it asked for the first bytes"),
    column("t_end_ns", NS, "ns", "when it ended, whatever the outcome"),
    column("resumed_from_byte", NS, "byte", "how much of the file the destination had before"),
    column("received_byte", NS, "byte", "how much of the file came, without headers"),
    column("goodput_bit_s", NS, "bit/s", "received_byte over the time of the attempt"),
    column("outcome", TEXT, "", "completed, stalled, moved_on, corrupt, broken, refused, unreachable or unfinished"),
    column("error", TEXT, "", "one sentence when there is something to say"),
    column("digest_ok", FLAG, "", "no piece had another SHA-256 than it must; null if nothing came"),
    column("tries", COUNT, "attempts", "this one, and those in vain since the last from the same source"),
    column("path_at_start", PATH, "", "planned path when it began, node names; null when there was none"),
    column("hops_at_start", COUNT, "links", "links on path_at_start"),
    column("handovers", COUNT, "changes", "how often the planned path changed meanwhile"),
    column("contacts", COUNT, "contacts", "contacts of the station that it used; null between satellites"),
    column("capacity_byte", NS, "byte", "what the slowest link of the planned path could carry meanwhile"),
)

DELIVERIES = schema(
    column("satellite", TEXT, "", "satellite that was to get the file"),
    column("kind", TEXT, "", "how: uplink, ring, tree or swarm"),
    column("size_byte", NS, "byte", "size of the file"),
    column("received_byte", NS, "byte", "how much came, with what was refused"),
    column("contacts", COUNT, "contacts", "contacts of the stations that it used; null for the others"),
    column("t_planned_ns", NS, "ns", "when the planned rates alone would have had it up; null for the others"),
    column("t_held_ns", NS, "ns", "when all of it was there and verified"),
    column("t_serving_ns", NS, "ns", "when the satellite's model server was healthy"),
    column("error", TEXT, "", "why it does not serve at the end of the run"),
)
