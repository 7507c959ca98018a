"""Conversations that move: what one satellite has computed of them (its KV cache) goes to another by laser."""

from __future__ import annotations

from pydantic import Field

from isl_emu.scenario.quantities import Delay, Duration, NodeName, Record

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
