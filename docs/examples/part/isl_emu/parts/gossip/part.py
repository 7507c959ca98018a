"""Gossip: a file spreads from one satellite to all others of a group, each telling the next."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from isl_emu.linkplan.plan import LinkPlan
from isl_emu.parts.activity import Activity, RunProcess
from isl_emu.parts.finished_run import FinishedRun
from isl_emu.parts.gossip.results import GOSSIP, gossip_section
from isl_emu.parts.gossip.spread import JOURNAL
from isl_emu.parts.live_run import LiveRun
from isl_emu.parts.part import Part, Source
from isl_emu.runs.journal import count_lines
from isl_emu.scenario.model import Scenario

PROCESS_BYTE = 120_000_000  # Python, numpy and the scenario


class GossipPart(Part):
    key = "gossip"
    lines = {JOURNAL: GOSSIP}

    def endpoints(self, scenario: Scenario, plan: LinkPlan) -> Iterable[str]:
        return (name for group in scenario.gossip for name in group.members(scenario.satellite_names))

    def own_byte(self, scenario: Scenario) -> int:
        return PROCESS_BYTE * len(scenario.gossip)

    def one_guest(self, source: Source) -> Iterable[str]:
        if source.scenario.gossip:
            yield "[[gossip]] is passed on by one process"

    def start(self, live: LiveRun) -> Iterable[Activity]:
        for number, _ in enumerate(live.scenario.gossip):
            words = ["isl_emu.parts.gossip.spread", "--folder", str(live.folder.path), "--group", str(number)]
            yield RunProcess(f"gossip-{number}", words, live.folder.journal)

    def status(self, journal: Path) -> Iterable[str]:
        if told := count_lines(journal / f"{JOURNAL}.jsonl"):
            yield f"satellites that were told by gossip: {told}"

    def sections(self, run: FinishedRun, figures: Mapping[str, Any]) -> Iterator[Iterable[str]]:
        if run.scenario.gossip:
            yield gossip_section(run.scenario, run.rows(JOURNAL))
