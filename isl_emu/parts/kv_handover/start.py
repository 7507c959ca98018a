"""The handovers of conversations in a live run: what their process is told."""

from __future__ import annotations

from collections.abc import Mapping

from isl_emu.nodes.containers import Container
from isl_emu.parts.serving.model_server import SLOT_FOLDER
from isl_emu.scenario.kv_handover import KvHandover


def kv_words(handover: KvHandover, containers: Mapping[str, Container]) -> list[str]:
    """The command line of one series of handovers, without the times of the run."""
    words = ["isl_emu.parts.kv_handover.handover"]
    for name in (handover.source, handover.target):  # a container's files, as its machine sees them
        words += ["--end", name, f"/proc/{containers[name].pid}/root{SLOT_FOLDER}"]
    for number, tokens in enumerate(handover.tokens):
        words += ["--due", str(handover.start_ns + number * handover.interval_ns), str(tokens)]
    return words
