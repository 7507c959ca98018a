"""Serving: model servers on satellites, real, throttled, modelled or external; `kinds` lists what these are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from isl_emu.parts.activity import Activity
from isl_emu.parts.finished_run import ConcludedRun, FinishedRun
from isl_emu.parts.live_run import LiveRun
from isl_emu.parts.part import CpuUse, Judgement, Need, Pace, Part, Preparation, Source
from isl_emu.parts.serving.board_servers import paces
from isl_emu.parts.serving.busy import AnsweringCpus
from isl_emu.parts.serving.kinds import KINDS, kind_of
from isl_emu.parts.serving.modelled_specification import PACE
from isl_emu.parts.serving.results import SERVERS, servers_chapter, servers_section
from isl_emu.parts.serving.start import serve_models, server_groups
from isl_emu.parts.serving.who_serves import SERVING
from isl_emu.runs.endpoints import FILE as ENDPOINTS
from isl_emu.runs.endpoints import read_endpoints
from isl_emu.runs.journal import REQUESTS_JOURNAL, SERVERS_JOURNAL, count_lines
from isl_emu.runs.merging import first_told
from isl_emu.scenario.matching import matching
from isl_emu.scenario.model import Scenario
from isl_emu.show.chapter import Chapter


class ServingPart(Part):
    key = "serving"
    lines = {SERVERS_JOURNAL: SERVERS}
    merges = {SERVERS_JOURNAL: first_told, Path(SERVING).stem: first_told, Path(PACE).stem: paces}

    def needs(self, scenario: Scenario) -> Iterable[Need]:
        for group in scenario.compute:
            yield from kind_of(group).needs(group, matching(group.satellites, scenario.satellite_names))

    def real_time(self, scenario: Scenario) -> Iterable[str]:
        return filter(None, (kind_of(group).real_time(group) for group in scenario.compute))

    def checks(self, scenario: Scenario) -> Iterable[Callable[[], object]]:
        return [partial(kind_of(group).check, group, "host") for group in scenario.compute]

    def prepare(self, source: Source, place: str) -> Preparation:
        models = [path for group in source.scenario.compute for path in kind_of(group).check(group, place)]
        return Preparation(models=tuple(models))

    def one_guest(self, source: Source) -> Iterable[str]:
        return ()

    def start(self, live: LiveRun) -> Iterable[Activity]:
        return serve_models(live)

    def status(self, *journals: Path) -> Iterable[str]:
        """How many can be asked by now, the heads of split models among them; each guest has written down all."""
        if (journals[0] / ENDPOINTS).exists():
            wanted = sum(endpoint.port is not None for endpoint in read_endpoints(journals[0]).values())
            if wanted:
                yield f"{count_lines(journals[0] / SERVING)} of {wanted} model servers ready"

    def cpu_use(self, run: FinishedRun, pace: Pace) -> Iterable[CpuUse]:
        """A server takes at most one CPU, and no more than its group has; one modelled or outside none to speak of.

        In slow motion each gets less, for longer, and so does one that is short of energy, or too hot.
        """
        scenario = run.scenario
        by_group = {row["group"]: row["cpus"] or 0.0 for row in run.rows(SERVERS_JOURNAL)}
        cpus = {
            name: by_group.get(number, group.compute.cpus)
            for number, group in server_groups(scenario).items()
            for name in group.satellites
        }

        def share(satellite: str, from_ns: int, to_ns: int) -> float:
            own = cpus.get(satellite, 0.0) * pace(satellite, from_ns, to_ns)
            return min(own / scenario.time.slowdown, 1.0)

        yield AnsweringCpus(run.rows(REQUESTS_JOURNAL), share)

    def judge(self, run: FinishedRun, pace: Pace) -> Judgement:
        found = [kind.judge(run, pace) for kind in KINDS.values()]
        figures = {name: value for one in found for name, value in one.figures.items()}
        return Judgement({"pace": figures}, tuple(reason for one in found for reason in one.reasons))

    def sections(self, run: FinishedRun, figures: Mapping[str, Any]) -> Iterator[Iterable[str]]:
        if servers := run.rows(SERVERS_JOURNAL):
            yield servers_section(servers, run.scenario.compute, figures["pace"])

    def chapters(self, run: ConcludedRun) -> Iterator[Chapter]:
        return servers_chapter(run.rows(SERVERS_JOURNAL), run.scenario.compute)
