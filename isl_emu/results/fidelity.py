"""Whether the machine distorted the run: what was measured about the emulator itself, and a verdict with reasons.

The rules are those of `docs/results.md`: each compares one figure with one limit, and a run is valid when none speaks
against it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from isl_emu.parts.power.allowed_pace import AllowedPace
from isl_emu.parts.power.totals import read_energy_table
from isl_emu.parts.questions.concurrency import Answering, Share, service_span
from isl_emu.parts.serving.pace import PaceFidelity, pace_fidelity, pace_reasons
from isl_emu.parts.training.learning import Learning
from isl_emu.results.surroundings import (
    SurroundingsFidelity,
    live_spans,
    mean,
    surroundings_fidelity,
    surroundings_reasons,
)
from isl_emu.runs.folder import RunFolder
from isl_emu.scenario.model import Scenario
from isl_emu.tables.distribution import Distribution
from isl_emu.tables.records import LOST_LINES, TABLES
from isl_emu.timebase import TimeGrid
from isl_emu.units import NS_PER_MS, NS_PER_S

FULL_RATIO = 0.97  # the emulator samples in clock ticks of 10 ms: 3 of 100 may be rounding
CPU_TOLERANCE = 0.1  # CPUs; service times overlap a little at their ends, by one network delay

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class ReplayFidelity:
    """How punctually the plan reached the kernel, and whether the kernel held it."""

    planned_instants: int
    applied_instants: int
    lateness_ns: Distribution
    mismatches: int


@dataclass(frozen=True)
class ProbeFidelity:
    """Measured against planned one-way delays; errors are absolute, over probes that do not straddle a change."""

    sent: int
    arrived: int
    lost: int  # though a path was planned, and no change was under way
    without_path: int  # none was planned, so it is not expected to arrive
    straddling: int
    strayed: int  # crossed another number of links than planned, or arrived without a planned path
    silent_pairs: tuple[str, ...]  # directions of whose probes with a planned path none arrived
    error_ns: Distribution
    error_per_hop_ns: Distribution
    signed_error_p50_ns: float | None


@dataclass(frozen=True)
class CpuFidelity:
    """The load of the kernel that carried the network; a saturated second is one the satellites do not account for."""

    samples: int
    cpus: int | None
    busy_mean_ratio: float | None
    full_ratio: float | None
    saturated_ratio: float | None
    crowded_answers: int  # given while the satellites that answered wanted more CPUs than there are
    steal_mean_ratio: float | None
    pressure_mean_ratio: float | None
    wakeup_lateness_ns: Distribution


@dataclass(frozen=True)
class Calibration:
    """What netem adds to each delay by itself, ns: taken off every delay, and what is left of it."""

    bias_ns: float | None
    residue_ns: float | None


@dataclass(frozen=True)
class Fidelity:
    """The verdict on a run, the reasons for it, and the figures behind it."""

    valid: bool
    reasons: tuple[str, ...]
    replay: ReplayFidelity
    probes: ProbeFidelity
    cpu: CpuFidelity
    pace: PaceFidelity
    surroundings: SurroundingsFidelity
    calibration: Calibration
    readback_mismatches: int | None
    dropped_packets: int | None
    marked_packets: int | None
    journal_lines_lost: int
    duration_ns: int  # of the plan
    ended_ns: int | None  # where the run ended in order; less than the plan's duration if its user wanted that
    pauses: tuple[Mapping[str, int], ...]
    limits: Mapping[str, Any]

    @property
    def ended_early(self) -> bool:
        """Whether the user ended the run before its plan did."""
        return self.ended_ns is not None and self.ended_ns < self.duration_ns

    def to_json(self) -> str:
        """The text of fidelity.json."""
        figures = dataclasses.asdict(self)
        verdict = "valid" if figures.pop("valid") else "invalid"
        return json.dumps({"verdict": verdict, **figures}, indent=2) + "\n"


def assess(folder: RunFolder, scenario: Scenario, execution: Mapping[str, Any] | None) -> Fidelity:
    """Judge a run by its tables.

    Args:
        execution: the content of `journal/execution.json`; None if the run did not come to its end.
    """
    tables = {name: pq.read_table(folder.table(name)).to_pylist() for name in TABLES if name != "changes"}
    known = execution or {}
    grid = scenario.time.grid
    ended_ns = known.get("ended_ns", grid.duration_ns)
    replay = replay_fidelity(tables["instants"], _instants_before(ended_ns, grid))
    probes = probe_fidelity(tables["probes"])
    allowed = AllowedPace(read_energy_table(folder.table("energy")))
    servers = _rows_if_any(folder.table("servers"))
    learning = Learning(_rows_if_any(folder.table("training")), scenario)
    cpu = cpu_fidelity(tables["load"], tables["requests"], _cpu_share(scenario, servers, allowed), learning)
    pace = pace_fidelity(folder.journal, tables["requests"], servers, scenario, allowed)
    pauses = _rows_if_any(folder.table("pauses"))
    spans = live_spans(known, pauses, scenario.time.slowdown)
    surroundings = surroundings_fidelity(_rows_if_any(folder.table("outside")), spans)
    readback = None if known.get("mismatches") is None else len(known["mismatches"])
    reasons = (
        *_ending_reasons(execution),
        *_replay_reasons(replay, readback, scenario),
        *_probe_reasons(probes, scenario),
        *_cpu_reasons(cpu, scenario),
        *surroundings_reasons(surroundings, cpu.steal_mean_ratio, scenario),
        *pace_reasons(pace, scenario),
    )
    return Fidelity(
        valid=not reasons,
        reasons=reasons,
        replay=replay,
        probes=probes,
        cpu=cpu,
        pace=pace,
        surroundings=surroundings,
        calibration=Calibration(known.get("bias_ns"), known.get("residue_ns")),
        readback_mismatches=readback,
        dropped_packets=known.get("dropped_packets"),
        marked_packets=known.get("marked_packets"),
        journal_lines_lost=sum(_lost_lines(folder.table(name)) for name in TABLES),
        duration_ns=grid.duration_ns,
        ended_ns=known.get("ended_ns"),
        pauses=tuple(pauses),
        limits=scenario.fidelity.model_dump(by_alias=True),
    )


def _rows_if_any(path: Path) -> Rows:
    return pq.read_table(path).to_pylist() if path.exists() else ()


def _cpu_share(scenario: Scenario, servers: Rows, allowed: AllowedPace) -> Share:
    """The machine's CPUs that a satellite uses while it answers; in slow motion it gets less, for longer.

    A model server has one thread, so it uses at most one; one that is modelled or outside uses none to speak of, and a
    throttled one has its own share. One that is short of energy, or too hot, gets less.
    """
    by_group = {row["group"]: row["cpus"] or 0.0 for row in servers}
    groups = {name: scenario.compute_of(name) for name in scenario.computing_satellites}
    cpus = {name: by_group.get(scenario.compute.index(group), group.cpus) for name, group in groups.items()}

    def share(satellite: str, from_ns: int, to_ns: int) -> float:
        pace = allowed.mean_ratio(satellite, from_ns, to_ns)
        return min(cpus.get(satellite, 0.0) * pace / scenario.time.slowdown, 1.0)

    return share


def _instants_before(t_ns: int, grid: TimeGrid) -> int:
    """How many instants are due before a time."""
    return min(-(-t_ns // grid.step_ns), grid.count)


def _rows_if_any(path: Path) -> Rows:
    return pq.read_table(path).to_pylist() if path.exists() else []


def _lost_lines(path: Path) -> int:
    return int((pq.read_schema(path).metadata or {}).get(LOST_LINES, b"0"))


def replay_fidelity(instants: Rows, planned: int) -> ReplayFidelity:
    """The punctuality of the replay."""
    lateness = Distribution.of(row["lateness_ns"] for row in instants)
    applied = len({row["k"] for row in instants})
    return ReplayFidelity(planned, applied, lateness, sum(row["mismatches"] or 0 for row in instants))


def probe_fidelity(probes: Rows) -> ProbeFidelity:
    """The errors of the probes that say something: arrived, with a planned path that did not change meanwhile."""
    steady = [row for row in probes if not row["straddles_change"]]
    routed = [row for row in steady if row["planned_delay_ns"] is not None]
    good = [row for row in routed if row["error_ns"] is not None]
    return ProbeFidelity(
        sent=len(probes),
        arrived=sum(row["delay_ns"] is not None for row in probes),
        lost=len(routed) - len(good),
        without_path=len(steady) - len(routed),
        straddling=len(probes) - len(steady),
        strayed=sum(_strayed(row) for row in steady),
        silent_pairs=_silent_pairs(routed),
        error_ns=Distribution.of(abs(row["error_ns"]) for row in good),
        error_per_hop_ns=Distribution.of(abs(row["error_ns"]) / row["hops"] for row in good),
        signed_error_p50_ns=Distribution.of(row["error_ns"] for row in good).p50,
    )


def _strayed(probe: Mapping[str, Any]) -> bool:
    if probe["hops_seen"] is None:
        return False
    return probe["hops"] is None or not probe["hops_least"] <= probe["hops_seen"] <= probe["hops_most"]


def _silent_pairs(routed: Rows) -> tuple[str, ...]:
    heard = {(row["a"], row["b"]) for row in routed if row["delay_ns"] is not None}
    asked = dict.fromkeys((row["a"], row["b"]) for row in routed)
    return tuple(f"{a} to {b}" for a, b in asked if (a, b) not in heard)


def cpu_fidelity(load: Rows, requests: Rows, share: Share, learning: Learning) -> CpuFidelity:
    """The load, with the seconds counted in which satellites or strangers took CPU time from each other.

    Args:
        share: the CPUs that a satellite uses while it answers.
        learning: the CPUs that satellites use while they train.
    """
    cpus = load[0]["cpus"] if load else None
    full = [row for row in load if (row["busy_ratio"] or 0.0) > FULL_RATIO]
    answering = Answering(requests)
    seconds = [(row["t_ns"] - NS_PER_S, row["t_ns"]) for row in full]
    wanted = [answering.mean_count(*second, share) + learning.cpus(*second) for second in seconds]
    saturated = sum(not _accounted_for(row["cpus"], used) for row, used in zip(full, wanted, strict=True))
    return CpuFidelity(
        samples=len(load),
        cpus=cpus,
        busy_mean_ratio=mean(load, "busy_ratio"),
        full_ratio=len(full) / len(load) if load else None,
        saturated_ratio=saturated / len(load) if load else None,
        crowded_answers=_crowded_answers(requests, answering, share, cpus),
        steal_mean_ratio=mean(load, "steal_ratio"),
        pressure_mean_ratio=mean(load, "pressure_ratio"),
        wakeup_lateness_ns=Distribution.of(row["wakeup_lateness_ns"] for row in load),
    )


def _crowded_answers(requests: Rows, answering: Answering, share: Share, cpus: int | None) -> int:
    if cpus is None:
        return 0
    spans = [span for row in requests if (span := service_span(row))]
    return sum(answering.mean_count(*span, share) > cpus + CPU_TOLERANCE for span in spans)


def _accounted_for(cpus: int, wanted_cpus: float) -> bool:
    """Whether satellites that answer or train explain full CPUs: they use the last one, and want no more than all."""
    return cpus - 1 < wanted_cpus <= cpus + CPU_TOLERANCE


def _ending_reasons(execution: Mapping[str, Any] | None) -> Iterator[str]:
    if execution is None:
        yield "run: it left no execution.json, but every run that comes to its end does; it was killed, so run it again"
    elif execution.get("error"):
        yield f"run: it ended with an error, but only a complete run counts: {execution['error']}"


def _replay_reasons(replay: ReplayFidelity, readback: int | None, scenario: Scenario) -> Iterator[str]:
    limit_ns = scenario.fidelity.lateness_p99_ns
    if replay.applied_instants < replay.planned_instants:
        yield (
            f"replay: {replay.applied_instants} of {replay.planned_instants} instants were applied, but the plan needs "
            "all of them; run it again to its end"
        )
    if (found_ns := replay.lateness_ns.p99) is not None and found_ns > limit_ns:
        what = "replay: the 99th percentile of how late changes were"
        yield _beyond(what, found_ns, limit_ns, "use a longer step or fewer links")
    differing = max(replay.mismatches, readback or 0)
    if differing:
        yield (
            f"kernel: {_settings(differing)} from the plan when read back, but none may; "
            "see execution in provenance.json"
        )


def _probe_reasons(probes: ProbeFidelity, scenario: Scenario) -> Iterator[str]:
    limits = scenario.fidelity
    if scenario.probes.pairs and not probes.sent:
        yield "probes: nothing measured the delays, but the scenario plans probes; see whether the prober was started"
    for pair in probes.silent_pairs:
        yield f"probes: nothing measured the delay from {pair}, but a path was planned; see why no probe arrived"
    if probes.strayed:
        yield (
            f"probes: {probes.strayed} of {probes.sent} crossed another number of links than planned, but none may; "
            "check the routes"
        )
    less_load = "lower the load, or give the run a machine of its own"
    if (found_ns := probes.error_per_hop_ns.p50) is not None and found_ns > limits.probe_error_per_hop_p50_ns:
        yield _beyond("probes: the median error per hop", found_ns, limits.probe_error_per_hop_p50_ns, less_load)
    if (found_ns := probes.error_ns.p95) is not None and found_ns > limits.probe_error_p95_ns:
        yield _beyond("probes: the 95th percentile of the error", found_ns, limits.probe_error_p95_ns, less_load)


def _cpu_reasons(cpu: CpuFidelity, scenario: Scenario) -> Iterator[str]:
    limit = scenario.fidelity.cpu_saturated_ratio
    if cpu.saturated_ratio is not None and cpu.saturated_ratio > limit:
        yield (
            f"CPU: it was saturated for {cpu.saturated_ratio:.1%} of the time, but at most {limit:.1%} is allowed; "
            "give the run a machine of its own, or let fewer satellites answer at once"
        )


def _settings(count: int) -> str:
    return "1 setting differs" if count == 1 else f"{count} settings differ"


def _beyond(what: str, found_ns: float, limit_ns: int, remedy: str) -> str:
    return f"{what} is {found_ns / NS_PER_MS:.3g} ms, but at most {limit_ns / NS_PER_MS:.3g} ms is allowed; {remedy}"
