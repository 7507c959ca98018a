"""The section on split models: how fast they were, beside what the plan predicts, and what passed between them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean, median
from typing import Any

from isl_emu.tables.text import INDENT, counted, facts, table, three_digits, time_text, wrapped
from isl_emu.units import NS_PER_S

Rows = Sequence[Mapping[str, Any]]


def split_section(rows: Rows) -> Iterator[str]:
    yield "SPLIT MODELS  (one token through all satellites; predicted: computing as measured, network as planned)"
    lines = [_line(own) for own in _by_head(rows) if _of_tokens(own)]
    if lines:
        header = ("head", "engine", "satellites", "tokens/s", "predicted", "a token", "computing", "network", "bytes")
        yield from table(header, lines, left=2)
    for own in _by_head(rows):
        yield from wrapped(INDENT, _hops(own))


def _by_head(rows: Rows) -> list[Rows]:
    return [[row for row in rows if row["head"] == head] for head in dict.fromkeys(row["head"] for row in rows)]


def _of_tokens(rows: Rows) -> Rows:
    """The rows of single tokens: a prompt is another thing."""
    return [row for row in rows if row["kind"] != "prompt"]


def _line(rows: Rows) -> tuple[str, ...]:
    tokens = _of_tokens(rows)
    loop_ns, predicted_ns = _mean(tokens, "loop_ns"), _mean(tokens, "predicted_ns")
    computed_ns, carried_byte = _mean(tokens, "compute_ns"), _mean(tokens, "hop_byte")
    assert loop_ns is not None, "every row has it"
    return (
        tokens[0]["head"],
        tokens[0]["engine"],
        str(len(tokens[0]["satellites"])),
        three_digits(NS_PER_S / loop_ns),
        "-" if predicted_ns is None else three_digits(NS_PER_S / predicted_ns),
        time_text(loop_ns),
        time_text(computed_ns),
        time_text(None if computed_ns is None else loop_ns - computed_ns),
        "-" if carried_byte is None else f"{carried_byte:,.0f}",
    )


def _mean(rows: Rows, key: str) -> float | None:
    """Of a column over all tokens, or of the sums of a column of lists; an answer's row stands for many tokens."""
    known = [(row[key], row["tokens"]) for row in rows if row[key] is not None]
    if not known:
        return None
    total: float = sum((sum(value) if isinstance(value, list) else value) * weight for value, weight in known)
    tokens: int = sum(weight for _, weight in known)
    return total / tokens


def _hops(rows: Rows) -> str:
    """The ring's hops, or the workers, each with its delay as planned and as measured."""
    members, tokens = rows[0]["satellites"], _of_tokens(rows)
    if rows[0]["engine"] != "pipeline":
        ways = [f"{members[0]} and back to {worker}" for worker in members[1:]]
        return facts(*(f"{way} {_planned(tokens, hop)} planned" for hop, way in enumerate(ways)))
    ways = [f"{before} to {after}" for before, after in zip(members, [*members[1:], members[0]], strict=True)]
    taken = [time_text(median(row["hop_ns"][hop] for row in tokens)) if tokens else "-" for hop in range(len(ways))]
    hops = [f"{way} {taken[hop]}, {_planned(tokens, hop)} planned" for hop, way in enumerate(ways)]
    prompts = [row["loop_ns"] for row in rows if row["kind"] == "prompt"]
    return facts(*hops, f"{counted(len(prompts), 'prompt')}, {time_text(median(prompts))} each" if prompts else None)


def _planned(rows: Rows, hop: int) -> str:
    known = [row["planned_hop_ns"][hop] for row in rows if row["planned_hop_ns"][hop] is not None]
    return time_text(fmean(known)) if known else "-"
