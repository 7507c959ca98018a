"""The section on conversations that moved: the way of their KV caches, beside computing them anew."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from isl_emu.tables.text import INDENT, counted, table, time_text, wrapped

STEPS = ("save_ns", "transfer_ns", "restore_ns", "resume_ns")


def kv_section(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield "CONVERSATIONS THAT MOVED  (their KV caches over the lasers, or computed anew)"
    done = [row for row in rows if row["outcome"] == "completed"]
    header = ("from", "to", "tokens", "cache", "saved", "sent", "restored", "resumed", "in all", "anew")
    if done:
        yield from table(header, [_line(row) for row in done], left=2)
    for row in rows:
        if row["outcome"] != "completed":
            yield from wrapped(INDENT, f"{row['tokens']} tokens to {row['target']}: {row['outcome']}, {row['error']}")
    if odd := [row for row in done if not row["same_answer"] or row["cached_tokens"] < row["tokens"] - 1]:
        text = "the target's server was busy with another conversation in between, or answered differently"
        yield from wrapped(INDENT, f"in {counted(len(odd), 'handover')} {text}")


def _line(row: Mapping[str, Any]) -> tuple[str, ...]:
    times = [time_text(row[step]) for step in STEPS]
    whole, size = time_text(sum(row[step] for step in STEPS)), f"{row['kv_byte'] / 1e6:.2f} MB"
    return (row["source"], row["target"], str(row["tokens"]), size, *times, whole, time_text(row["reprefill_ns"]))
