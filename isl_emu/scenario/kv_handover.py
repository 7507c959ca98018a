"""Conversations that move: what one satellite has computed of them (its KV cache) goes to another by laser."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pydantic import Field

from isl_emu.scenario.compute import LOADING
from isl_emu.scenario.quantities import Delay, Duration, NodeName, Record

if TYPE_CHECKING:
    from isl_emu.scenario.model import Scenario

ROOM_TOKENS = 16  # of the context, for what the next satellite answers


class KvHandover(Record):
    """A series of conversations that are computed on one satellite and go on at another.

    `tokens`: how long each conversation is when it moves, one handover for each. The first one is due at `start`, the
    others `interval` apart.
    """

    source: NodeName
    target: NodeName
    tokens: tuple[int, ...] = Field(min_length=1)
    start_ns: Delay = Field(alias="start", default=0)
    interval_ns: Duration = Field(alias="interval", default=30_000_000_000)


def kv_contradictions(scenario: Scenario) -> Iterator[str]:
    """Problems of the handovers that show when all parts of a scenario are seen together."""
    for index, handover in enumerate(scenario.kv_handover):
        where = f"kv_handover[{index}]"
        if handover.source == handover.target:
            yield f"{where}.target is {handover.target!r}, but that is the source; name another"
        ends = {key: scenario.compute_of(getattr(handover, key)) for key in ("source", "target")}
        for key, group in ends.items():
            if group is None or group.server not in LOADING:
                yield (
                    f"{where}.{key} is {getattr(handover, key)!r}, but it runs no real model server; "
                    "add it to a [[compute]] group"
                )
        if None in ends.values():
            continue
        if ends["source"].model != ends["target"].model:
            yield f"{where} is between two models, but a KV cache is of one; give both satellites the same"
        room = min(group.context_tokens for group in ends.values()) - ROOM_TOKENS
        if not all(1 <= tokens <= room for tokens in handover.tokens):
            yield f"{where}.tokens has {max(handover.tokens)}, but between 1 and {room} fit the context; raise that"


