"""Conversations that move: what one satellite has computed of them (its KV cache) goes to another by laser."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from pydantic import Field

from isl_emu.scenario.compute import Compute
from isl_emu.scenario.matching import unknown
from isl_emu.scenario.quantities import Delay, Duration, NodeName, Record

ROOM_TOKENS = 16  # of the context, for what the next satellite answers


class KvHandover(Record):
    """A series of conversations that are computed on one satellite and go on at another.

    `tokens`: how long each conversation is when it moves, one handover for each. The first one is due at `start`, the
    others `interval` apart.
    """

    source: NodeName
    target: NodeName
    tokens: tuple[int, ...] = Field(examples=[[100, 500]], min_length=1)
    start_ns: Delay = Field(alias="start", default=0)
    interval_ns: Duration = Field(alias="interval", default=30_000_000_000)


def kv_contradictions(
    handovers: Sequence[KvHandover], satellites: Sequence[str], group_of: Callable[[str], Compute | None]
) -> Iterator[str]:
    """Problems of the handovers that show beside the satellites and the groups that these compute in."""
    for index, handover in enumerate(handovers):
        where = f"kv_handover[{index}]"
        if strangers := [*unknown(where, (handover.source, handover.target), satellites, "satellite")]:
            yield from strangers
            continue
        if handover.source == handover.target:
            yield f"{where}.target is {handover.target!r}, but that is the source; name another"
        source, target = group_of(handover.source), group_of(handover.target)
        for key, name, group in (("source", handover.source, source), ("target", handover.target, target)):
            if group is None or not group.traits.llama:
                yield f"{where}.{key} is {name!r}, but it runs no real model server; add it to a [[compute]] group"
        if source is None or target is None:
            continue
        if source.model != target.model:
            yield f"{where} is between two models, but a KV cache is of one; give both satellites the same"
        room = min(source.context_tokens, target.context_tokens) - ROOM_TOKENS
        for number, tokens in enumerate(handover.tokens):
            if not 1 <= tokens <= room:
                yield f"{where}.tokens[{number}] is {tokens}, but between 1 and {room} fit the context; correct it"
