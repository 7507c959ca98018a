"""The table of conversations that moved."""

from __future__ import annotations

from isl_emu.tables.schema import COUNT, FLAG, NS, TEXT, TIMES, column, schema

JOURNAL = "kv_handovers"  # also the table's name

KV_HANDOVERS = schema(
    column("source", TEXT, "", "satellite that has computed the conversation"),
    column("target", TEXT, "", "satellite where it goes on"),
    column("t_due_ns", NS, "ns", "when the handover was due"),
    column("t_ns", NS, "ns", "when it began; null if it never did"),
    column("outcome", TEXT, "", "completed, failed or unfinished"),
    column("error", TEXT, "", "what went wrong, unless completed"),
    column("tokens", COUNT, "tokens", "length of the conversation"),
    column("prefill_ns", NS, "ns", "the source's time to compute it"),
    column("kv_byte", NS, "bytes", "size of the saved cache"),
    column("received_byte", NS, "bytes", "what arrived at the target"),
    column("save_ns", NS, "ns", "time to write the cache to a file at the source"),
    column("transfer_ns", NS, "ns", "time to fetch the file over the network"),
    column("restore_ns", NS, "ns", "time to read it into the target's server"),
    column("resume_ns", NS, "ns", "the target's time for what was not in the cache"),
    column("cached_tokens", COUNT, "tokens", "how much of the conversation the target found in its cache"),
    column("reprefill_ns", NS, "ns", "the target's time to compute the whole conversation anew"),
    column("computing_ns", TIMES, "ns", "when the source, then the target twice, began and ended to compute"),
    column("same_answer", FLAG, "", "both ways led to the same next tokens"),
)
