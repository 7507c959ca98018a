"""The table of gossip."""

from __future__ import annotations

from isl_emu.tables.schema import COUNT, NAME, NS, column, schema

GOSSIP = schema(
    column("group", COUNT, "", "number of the scenario's gossip table"),
    column("source", NAME, "", "satellite that passed the file on"),
    column("target", NAME, "", "satellite that got it, for the first time"),
    column("t_start_ns", NS, "ns", "when the source began to send it"),
    column("t_end_ns", NS, "ns", "when the target had all of it"),
    column("size_byte", NS, "byte", "length of the file"),
)
