"""Serving: model servers on satellites, real, throttled, modelled or external."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from isl_emu.parts.activity import Activity
from isl_emu.parts.finished_run import FinishedRun
from isl_emu.parts.live_run import LiveRun
from isl_emu.parts.needs import Need
from isl_emu.parts.part import CpuUse, Judgement, Pace, Part, Preparation
from isl_emu.parts.serving.busy import AnsweringCpus
from isl_emu.parts.serving.checks import check_servers
from isl_emu.parts.serving.needs import server_needs
from isl_emu.parts.serving.pace import pace_fidelity, pace_reasons
from isl_emu.parts.serving.report import servers_section
from isl_emu.parts.serving.start import serve_models
from isl_emu.parts.serving.tables import SERVERS
from isl_emu.parts.source import Source
from isl_emu.scenario.model import Scenario


class ServingPart(Part):
    key = "serving"
    lines = {"servers": SERVERS}

    def needs(self, scenario: Scenario) -> Iterable[Need]:
        return server_needs(scenario)

    def real_time(self, scenario: Scenario) -> Iterable[str]:
        kinds = dict.fromkeys(group.server for group in scenario.compute if group.server != "modelled")
        for kind in kinds:
            yield f'compute.server is "{kind}", whose answers would take no time to compute'

    def prepare(self, source: Source, place: str) -> Preparation:
        return Preparation(models=tuple(check_servers(source.scenario, place)))

    def start(self, live: LiveRun) -> Iterable[Activity]:
        return serve_models(live)

    def cpu_use(self, run: FinishedRun, pace: Pace) -> Iterable[CpuUse]:
        """A model server has one thread, so it uses at most one CPU, and a throttled one its own share.

        One that is modelled or outside uses none to speak of. In slow motion each gets less, for longer, and so does
        one that is short of energy, or too hot.
        """
        scenario, by_group = run.scenario, {row["group"]: row["cpus"] or 0.0 for row in run.rows("servers")}
        groups = {name: scenario.compute_of(name) for name in scenario.computing_satellites}
        cpus = {
            name: by_group.get(scenario.compute.index(group), group.cpus)
            for name, group in groups.items()
            if group is not None
        }

        def share(satellite: str, from_ns: int, to_ns: int) -> float:
            own = cpus.get(satellite, 0.0) * pace(satellite, from_ns, to_ns)
            return min(own / scenario.time.slowdown, 1.0)

        yield AnsweringCpus(run.rows("requests"), share)

    def judge(self, run: FinishedRun, pace: Pace) -> Judgement:
        found = pace_fidelity(run, pace)
        return Judgement({"pace": found}, tuple(pace_reasons(found, run.scenario)))

    def sections(self, run: FinishedRun, figures: Mapping[str, Any]) -> Iterator[Iterable[str]]:
        if servers := run.rows("servers"):
            yield servers_section(servers, figures["pace"])
