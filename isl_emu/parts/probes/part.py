"""Probes: packets that measure the one-way delay between pairs of nodes along the run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from isl_emu.linkplan.plan import LinkPlan
from isl_emu.partition.load import Flow
from isl_emu.parts.activity import Activity, RunProcess
from isl_emu.parts.finished_run import ConcludedRun, FinishedRun
from isl_emu.parts.live_run import LiveRun
from isl_emu.parts.part import Crossing, Judgement, Pace, Part, Preparation, Source, Traffic
from isl_emu.parts.probes.compared import probe_table
from isl_emu.parts.probes.halves import joined_probes, joined_samples
from isl_emu.parts.probes.prober import JOURNAL
from isl_emu.parts.probes.results import PROBES, delays_section, probe_fidelity, probe_reasons, probe_rows
from isl_emu.parts.probes.traffic import JOURNAL as ENDS_JOURNAL
from isl_emu.parts.probes.traffic import ProbedEnds, leave_watched_ends
from isl_emu.runs.journal import INCIDENTS_JOURNAL, joined
from isl_emu.scenario.model import Scenario
from isl_emu.show.chapter import Chapter
from isl_emu.tables.found_ways import JOURNAL as ROUTES_JOURNAL
from isl_emu.tables.found_ways import FoundWays
from isl_emu.tables.text import time_text


class ProbesPart(Part):
    key = "probes"
    tables = {"probes": PROBES}
    merges = {JOURNAL: joined_probes, ENDS_JOURNAL: joined_samples}

    def endpoints(self, scenario: Scenario, plan: LinkPlan) -> Iterable[str]:
        return (name for pair in scenario.probes.pairs for name in pair)

    def traffic(self, scenario: Scenario) -> Iterable[Traffic]:
        sent = 2 * len(scenario.probes.pairs) * scenario.time.duration_ns / scenario.probes.interval_ns
        yield Traffic("probes", sent)

    def prepare(self, source: Source, place: str) -> Preparation:
        pairs = source.scenario.probes.pairs
        if not pairs:
            return Preparation()
        return Preparation(
            leave=lambda folder, _: leave_watched_ends(
                source.plan, source.routes, pairs, folder.journal, anywhere=source.scenario.routing.policy == "none"
            )
        )

    def one_guest(self, source: Source) -> Iterable[str]:
        return ()

    def flows(self, source: Source) -> Iterable[Flow]:
        probes, duration_ns = source.scenario.probes, source.plan.grid.duration_ns
        for a, b in (way for pair in probes.pairs for way in (pair, pair[::-1])):
            yield Flow(a, b, duration_ns / probes.interval_ns)

    def start(self, live: LiveRun) -> Iterable[Activity]:
        probes = live.scenario.probes
        if probes.pairs:
            pairs = ",".join(f"{a}:{b}" for a, b in probes.pairs)
            rhythm = ["--interval-ns", str(probes.interval_ns), "--step-ns", str(live.plan.grid.step_ns)]
            names = {name for pair in probes.pairs for name in pair}
            if here := ",".join(sorted(filter(live.is_here, names))):
                words = ["isl_emu.parts.probes.prober", "--pairs", pairs, "--here", here, *rhythm]
                yield RunProcess("prober", words, live.folder.journal)
            yield ProbedEnds(live)

    def conclude(self, run: FinishedRun) -> None:
        probes, samples = run.journal(JOURNAL), run.journal(ENDS_JOURNAL)
        disturbed = [
            (record["t_ns"], math.inf if record["t_end_ns"] is None else record["t_end_ns"])
            for record in joined(run.journal(INCIDENTS_JOURNAL).records)
            if record["kind"] == "intervention"
        ]
        ways = None
        if run.scenario.routing.policy == "none":
            ways = FoundWays(run.plan, run.journal(ROUTES_JOURNAL).records, exact=_exact(run))
        records = sorted(probes.records, key=lambda record: record["t_send_ns"])
        if ways is None and run.paths.one_way_each:
            run.write_table("probes", probe_table(records, run.paths, samples.records, disturbed), probes.lost_lines)
        else:
            rows = probe_rows(records, run.paths, samples.records, disturbed, ways)
            run.write("probes", PROBES, rows, probes.lost_lines)

    def judge(self, run: FinishedRun, pace: Pace) -> Judgement:
        found = probe_fidelity(run.rows("probes"))
        error = found.error_per_hop_ns
        line = "probes", f"off by {time_text(error.p50)} a hop (p50), {time_text(error.p95)} (p95)"
        reasons = tuple(probe_reasons(found, run.scenario, _exact(run)))
        return Judgement({"probes": found}, reasons, (line,) if found.sent else ())

    def sections(self, run: FinishedRun, figures: Mapping[str, Any]) -> Iterator[Iterable[str]]:
        if probes := run.rows("probes"):
            yield delays_section(probes)

    def chapters(self, run: ConcludedRun) -> Iterator[Chapter]:
        from isl_emu.parts.probes.chapters import probes_chapter  # which draws; that is slow to import

        return probes_chapter(run)

    def ways(self, run: ConcludedRun) -> Iterable[Sequence[str]]:
        return (row["path"] for row in run.rows("probes") if row["path"])

    def crossings(self, run: ConcludedRun) -> Iterable[Crossing]:
        for row in run.rows("probes"):
            send_ns, delay_ns = row["t_send_ns"], row["delay_ns"]
            yield Crossing(row["a"], row["b"], send_ns, None if delay_ns is None else send_ns + delay_ns)


def _exact(run: FinishedRun) -> bool:
    return run.execution is not None and run.execution.clock == "exact"
