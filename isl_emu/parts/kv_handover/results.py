"""The table of conversations that moved, and its section of the summary: KV caches, beside computing anew."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from isl_emu.show.chapter import Chapter, DataTable
from isl_emu.tables.schema import COUNT, FLAG, NS, TEXT, TIMES, column, schema
from isl_emu.tables.text import INDENT, counted, table, time_text, wrapped

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

Rows = Sequence[Mapping[str, Any]]
STEPS = ("save_ns", "transfer_ns", "restore_ns", "resume_ns")


KV_HEADER = ("from", "to", "tokens", "cache", "saved", "sent", "restored", "resumed", "in all", "anew")


def kv_section(rows: Rows) -> Iterator[str]:
    yield "CONVERSATIONS THAT MOVED  (their KV caches over the lasers, or computed anew)"
    if lines := _lines(rows):
        yield from table(KV_HEADER, lines, left=2)
    for remark in _remarks(rows):
        yield from wrapped(INDENT, remark)


def kv_chapter(rows: Rows) -> Iterator[Chapter]:
    """Nothing for a run without handovers."""
    if rows:
        steps = "Each step of moving a conversation's KV cache, and computing all of it anew instead"
        moved = DataTable(steps, KV_HEADER, _lines(rows), left=2)
        yield Chapter("Conversations that moved", [moved, *(f"{remark}." for remark in _remarks(rows))])


def _lines(rows: Rows) -> list[tuple[str, ...]]:
    """What `KV_HEADER` names, of each completed handover."""
    lines = []
    for row in _done(rows):
        whole, size = time_text(sum(row[step] for step in STEPS)), f"{row['kv_byte'] / 1e6:.2f} MB"
        steps = [time_text(row[step]) for step in STEPS]
        ends = row["source"], row["target"], str(row["tokens"])
        lines.append((*ends, size, *steps, whole, time_text(row["reprefill_ns"])))
    return lines


def _done(rows: Rows) -> Rows:
    return [row for row in rows if row["outcome"] == "completed"]


def _remarks(rows: Rows) -> Iterator[str]:
    """What became of the others, and which completed ones were not as they should be."""
    for row in rows:
        if row["outcome"] != "completed":
            yield f"{row['tokens']} tokens to {row['target']}: {row['outcome']}, {row['error']}"
    if odd := [row for row in _done(rows) if not row["same_answer"] or row["cached_tokens"] < row["tokens"] - 1]:
        text = "the target's server was busy with another conversation in between, or answered differently"
        yield f"in {counted(len(odd), 'handover')} {text}"
