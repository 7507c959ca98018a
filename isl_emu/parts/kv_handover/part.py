"""Hand-overs of conversations: the KV cache of one moves from a satellite to another over the lasers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from isl_emu.linkplan.plan import LinkPlan
from isl_emu.parts.activity import Activity, RunProcess
from isl_emu.parts.finished_run import FinishedRun
from isl_emu.parts.kv_handover.report import kv_section
from isl_emu.parts.kv_handover.tables import KV_HANDOVERS
from isl_emu.parts.live_run import LiveRun
from isl_emu.parts.part import Part
from isl_emu.parts.serving.model_server import SLOT_FOLDER
from isl_emu.runs.ports import FIRST_CACHE_PORT
from isl_emu.scenario.model import Scenario


class KvHandoverPart(Part):
    key = "kv_handover"
    lines = {"kv_handovers": KV_HANDOVERS}

    def endpoints(self, scenario: Scenario, plan: LinkPlan) -> Iterable[str]:
        return (name for handover in scenario.kv_handover for name in (handover.source, handover.target))

    def start(self, live: LiveRun) -> Iterable[Activity]:
        for number, handover in enumerate(live.scenario.kv_handover):
            words = ["isl_emu.parts.kv_handover.handover", "--port", str(FIRST_CACHE_PORT + number)]
            for name in (handover.source, handover.target):  # a container's files, as its machine sees them
                words += ["--end", name, f"/proc/{live.containers[name].pid}/root{SLOT_FOLDER}"]
            for due, tokens in enumerate(handover.tokens):
                words += ["--due", str(handover.start_ns + due * handover.interval_ns), str(tokens)]
            yield RunProcess(f"kv-handover-{number}", words, live.folder.journal)

    def sections(self, run: FinishedRun, figures: Mapping[str, Any]) -> Iterator[Iterable[str]]:
        if rows := run.rows("kv_handovers"):
            yield kv_section(rows)
