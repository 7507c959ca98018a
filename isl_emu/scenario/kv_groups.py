"""Whether the hand-overs of conversations fit the satellites that serve."""

from __future__ import annotations

from collections.abc import Iterator

from isl_emu.scenario.compute import LOADING
from isl_emu.scenario.kv_handover import ROOM_TOKENS
from isl_emu.scenario.model import Scenario


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
