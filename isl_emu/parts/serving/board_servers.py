"""Servers at a board's pace: what each of a group is, and the one process that serves them all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from isl_emu.parts.activity import Service
from isl_emu.parts.live_run import LiveRun
from isl_emu.parts.serving.board_pace import group_roofline, pace_name, wanted_tokens_s
from isl_emu.parts.serving.modelled_specification import Specification, write_specifications
from isl_emu.parts.serving.server_kind import Facts, ServerGroup
from isl_emu.runs.endpoints import MODEL_PORT
from isl_emu.scenario.compute import Compute
from isl_emu.scenario.models import MODELS


def pace_facts(group: Compute) -> Facts:
    """What records say of a group's pace."""
    return {"decode_tokens_s": wanted_tokens_s(group), "paced_as": pace_name(group)}


def specifications(live: LiveRun, group: ServerGroup, words_port: int | None = None) -> list[Specification]:
    """One for each satellite of a group.

    Args:
        words_port: where a real server of theirs listens, if their words are real.
    """
    compute = group.compute
    shared: dict[str, Any] = {"port": MODEL_PORT, "slots": compute.board_slots, "words_port": words_port}
    shared |= {"context_tokens": compute.context_tokens}
    if compute.decode_tokens_s is not None:
        shared |= {"board": "", "model": "", "bits": 0, "decode_tokens_s": compute.decode_tokens_s}
    else:
        roofline = group_roofline(compute)
        shape = None if roofline.model == MODELS.get(roofline.model.name) else roofline.model
        shared |= {"board": roofline.board.name, "model": roofline.model.name, "bits": roofline.bits, "shape": shape}
    nodes = map(live.net.get, group.satellites)
    return [Specification(node.name, node.netns_path, node.address, **shared) for node in nodes]


def start_board_servers(live: LiveRun, specs: Sequence[Specification]) -> Service:
    """Start the process that serves all of them; it listens when this returns."""
    journal = live.folder.journal
    write_specifications(specs, journal)
    words = ["isl_emu.parts.serving.modelled_server", "--journal", str(journal)]
    with live.phase("servers", f"serving at a board's pace on {len(specs)} satellites"):
        return Service("modelled-servers", words, journal, live.undo)
