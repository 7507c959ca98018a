"""The substrate: what lies below the links between guests that share a run in real time, and their common clock."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from isl_emu.errors import ScenarioError
from isl_emu.machine.trunks import (
    Clocks,
    ProbeTaken,
    count_frames,
    keep_clock,
    machine_here,
    read_clocks,
    send_probe,
    take_probes,
)
from isl_emu.parts.activity import Activity
from isl_emu.parts.finished_run import FinishedRun
from isl_emu.parts.live_run import LiveRun
from isl_emu.parts.part import Judgement, Pace, Part, Source
from isl_emu.parts.substrate.estimates import (
    SUBSTRATE,
    Apart,
    apart_by_round_trips,
    apart_on_one_machine,
    shortest_link,
    substrate_fidelity,
    substrate_reasons,
    substrate_row,
    too_short,
)
from isl_emu.runs.clock import RunTimes
from isl_emu.runs.journal import Journal
from isl_emu.runs.meeting import meet
from isl_emu.runs.merging import Records
from isl_emu.tables.text import share, time_text

JOURNAL = "substrate"
ROW_S = 1.0
START_SPACING_S, SPACING_S = 0.01, 0.05  # of probes to each guest, before the run and while it is live
GAIN = 0.5  # how much of what a clock is found to be ahead of that which it follows is taken off at once
NOTHING = -(1 << 63)  # in a probe: its sender has none of ours yet


def by_time(parts: Iterable[Records]) -> Records:
    """Each direction is told by who receives."""
    rows = [record for part in parts for record in part]
    return sorted(rows, key=lambda row: (row["t_ns"], row["from_guest"], row["to_guest"]))


class SubstratePart(Part):
    key = "substrate"
    lines = {JOURNAL: SUBSTRATE}
    merges = {JOURNAL: by_time}

    def one_guest(self, source: Source) -> Iterable[str]:
        return ()

    def start(self, live: LiveRun) -> Iterable[Activity]:
        if live.portion.count > 1 and not live.exact:
            yield Substrate(live)

    def judge(self, run: FinishedRun, pace: Pace) -> Judgement:
        found = substrate_fidelity(run.rows(JOURNAL))
        if not found:
            return Judgement()
        late, frames = sum(one.late_frames for one in found), sum(one.frames for one in found)
        quartiles = [one.delay_q1_ns for one in found if one.delay_q1_ns is not None]
        unsure_ns = [one.unsure_ns for one in found if one.unsure_ns is not None]
        line = (
            f"between guests {time_text(max(quartiles, default=None))} at most (lower quartile), "
            f"{share(late / frames if frames else 0.0)} of {frames:,} frames late, "
            f"clocks apart by no more than {time_text(max(unsure_ns, default=None))}"
        )
        limit_ns = run.scenario.fidelity.probe_error_per_hop_p50_ns
        return Judgement({"substrate": found}, tuple(substrate_reasons(found, limit_ns)), (("substrate", line),))


class Substrate(Activity):
    """Keeps this guest's clock, measures what probes of other guests take, and counts frames that come late.

    Guests on the first one's machine have that machine's clock. Guests on another have the first guest's, by probes in
    both directions.

    Raises:
        ScenarioError: a link is shorter than what its frames take here.
    """

    def __init__(self, live: LiveRun):
        self._live, self._own, self._stopped = live, live.portion.number, threading.Event()
        self._peers = [number for number in range(live.portion.count) if number != self._own]
        self._least: dict[int, int] = {}  # what probes of guests on other machines have taken
        with live.phase("substrate", "measuring what lies between the guests"):
            keep_clock(read_clocks().ahead_ns)
            said = meet(live.folder, live.portion.count, "built", {"machine": machine_here()})
            machines = [one["machine"] for one in said]
            self._near = {peer for peer in self._peers if machines[peer] == machines[self._own]}
            self._follows = machines[self._own] != machines[0]
            self._rows = self._measure(ROW_S, START_SPACING_S)
            if len(set(machines)) > 1:
                self._follow(self._rows, 1.0)
                meet(live.folder, live.portion.count, "followed", {})
                self._rows = self._measure(ROW_S, START_SPACING_S)
            self._check(self._rows)

    def begin(self, times: RunTimes, ending: ExitStack) -> None:
        thread = threading.Thread(target=self._watch, args=(times,), daemon=True)
        thread.start()
        ending.callback(thread.join)
        ending.callback(self._stopped.set)

    def _watch(self, times: RunTimes) -> None:
        with Journal(self._live.folder.journal / f"{JOURNAL}.jsonl") as journal:
            while True:
                t_ns = self._live.clock.now_ns() - times.t0_ns
                for row in self._rows:
                    journal.append({"t_ns": t_ns, **row})
                if self._stopped.is_set():
                    return
                self._rows = self._measure(ROW_S, SPACING_S)
                self._follow(self._rows, GAIN)

    def _measure(self, duration_s: float, spacing_s: float) -> list[dict[str, Any]]:
        """Send probes for a while; a row for each peer about those of its that came meanwhile."""
        taken: dict[int, list[ProbeTaken]] = {peer: [] for peer in self._peers}
        clocks = read_clocks()
        for _ in range(round(duration_s / spacing_s)):
            for peer in self._peers:
                send_probe(peer, clocks.ahead_ns if peer in self._near else self._least.get(peer, NOTHING))
            ended = self._stopped.wait(spacing_s)
            for probe in take_probes():
                taken[probe.peer].append(probe)
            self._least |= {peer: min(one.took_ns for one in probes) for peer, probes in taken.items() if probes}
            if ended:
                break
        frames = {one.peer: one for one in count_frames()}
        return [
            substrate_row(self._own, peer, probes, self._apart(peer, probes, clocks), frames[peer])
            for peer, probes in taken.items()
        ]

    def _apart(self, peer: int, probes: Sequence[ProbeTaken], clocks: Clocks) -> Apart | None:
        if not probes or probes[-1].content_ns == NOTHING:
            return None
        if peer in self._near:
            return apart_on_one_machine(clocks, probes[-1].content_ns)
        return apart_by_round_trips(self._least[peer], probes[-1].content_ns)

    def _follow(self, rows: Sequence[Mapping[str, Any]], gain: float) -> None:
        """Set this guest's clock by the first one's, if that is on another machine."""
        for row in rows:
            if self._follows and row["from_guest"] == 0 and row["apart_ns"] is not None:
                keep_clock(-round(gain * row["apart_ns"]))

    def _check(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Refuse links that are shorter than what frames take as a rule."""
        live, bias_ns = self._live, round(self._live.phase.execution.bias_ns or 0)
        for row in rows:
            peer, took_ns = row["from_guest"], row["delay_p50_ns"]
            shortest = shortest_link(live.plan, live.portion.part, (self._own, peer))
            if shortest is None or took_ns is None:
                continue
            shaped_ns = round(shortest.delay_ns * live.scenario.time.slowdown) - bias_ns
            if refusal := too_short(shortest.name, shaped_ns, peer, self._own, took_ns):
                raise ScenarioError(refusal)
