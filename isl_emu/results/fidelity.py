"""Whether the machine distorted the run: what was measured about the emulator itself, and a verdict with reasons.

The rules are those of `docs/results.md`: each compares one figure with one limit, and a run is valid when none speaks
against it.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow.parquet as pq

from isl_emu.parts.finished_run import FinishedRun, Rows
from isl_emu.parts.part import CpuUse
from isl_emu.parts.registry import PARTS
from isl_emu.runs.execution import Execution
from isl_emu.runs.journal import INCIDENTS_JOURNAL, INSTANTS_JOURNAL, LOAD_JOURNAL, OUTSIDE_JOURNAL, PAUSES_JOURNAL
from isl_emu.scenario.model import Scenario
from isl_emu.tables.schema import LOST_LINES
from isl_emu.tables.text import Distribution, beyond
from isl_emu.units import NS_PER_S

FULL_RATIO = 0.97  # the emulator samples in clock ticks of 10 ms: 3 of 100 may be rounding
MOST_DEATHS_TOLD = 5  # in the verdict; all are in the table
CPU_TOLERANCE = 0.1  # CPUs; service times overlap a little at their ends, by one network delay


@dataclass(frozen=True)
class ReplayFidelity:
    """How punctually the plan reached the kernel, and whether the kernel held it."""

    planned_instants: int
    applied_instants: int
    lateness_ns: Distribution
    mismatches: int


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

    clock: str  # "exact", where the machine's load distorts nothing, or "real"
    valid: bool
    reasons: tuple[str, ...]  # of the machine, and of what died
    interventions: tuple[str, ...]  # what somebody changed in the network
    replay: ReplayFidelity
    cpu: CpuFidelity
    parts: Mapping[str, Any]  # what each part measured, by its name in fidelity.json
    machine: tuple[tuple[str, str], ...]  # what parts say of the machine, for the summary
    surroundings: SurroundingsFidelity
    calibration: Calibration
    readback_mismatches: int | None
    dropped_packets: int | None
    marked_packets: int | None
    carried_packets: int | None
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
        valid, parts, _ = figures.pop("valid"), figures.pop("parts"), figures.pop("machine")
        verdict = "valid" if valid else "invalid" if self.reasons else "intervened"
        return json.dumps({"verdict": verdict, **figures, **parts}, indent=2) + "\n"


def assess(run: FinishedRun) -> Fidelity:
    """Judge a run by its tables."""
    scenario, execution, grid = run.scenario, run.execution or Execution(), run.scenario.time.grid
    exact = execution.clock == "exact"
    paces = [found for part in PARTS if (found := part.pace(run)) is not None]

    def pace(satellite: str, from_ns: int, to_ns: int) -> float:
        return math.prod(one(satellite, from_ns, to_ns) for one in paces)

    judgements = [part.judge(run, pace) for part in PARTS]
    replay = replay_fidelity(run.rows(INSTANTS_JOURNAL), min(-(-run.ended_ns // grid.step_ns), grid.count))
    cpu = cpu_fidelity(run.rows(LOAD_JOURNAL), [use for part in PARTS for use in part.cpu_use(run, pace)])
    pauses = run.rows(PAUSES_JOURNAL)
    surroundings = surroundings_fidelity(
        run.rows(OUTSIDE_JOURNAL), live_spans(execution, pauses, scenario.time.slowdown)
    )
    schemas = [pq.read_schema(path) for path in run.folder.tables]
    readback = None if execution.mismatches is None else len(execution.mismatches)
    incidents = run.rows(INCIDENTS_JOURNAL)
    interventions = tuple(map(incident_text, (row for row in incidents if row["kind"] == "intervention")))
    reasons = (
        *_ending_reasons(run.execution, [row for row in incidents if row["kind"] == "death"]),
        *_replay_reasons(replay, readback, None if exact and not pauses else scenario.fidelity.lateness_p99_ns),
        *(() if exact else _cpu_reasons(cpu, scenario)),
        *(() if exact else surroundings_reasons(surroundings, cpu.steal_mean_ratio, scenario)),
        *(reason for judgement in judgements for reason in judgement.reasons),
    )
    return Fidelity(
        clock=execution.clock,
        valid=not reasons and not interventions,
        reasons=reasons,
        interventions=interventions,
        replay=replay,
        cpu=cpu,
        parts={name: figures for judgement in judgements for name, figures in judgement.figures.items()},
        machine=tuple(line for judgement in judgements for line in judgement.machine),
        surroundings=surroundings,
        calibration=Calibration(execution.bias_ns, execution.residue_ns),
        readback_mismatches=readback,
        dropped_packets=execution.dropped_packets,
        marked_packets=execution.marked_packets,
        carried_packets=execution.carried_packets,
        journal_lines_lost=sum(int((schema.metadata or {}).get(LOST_LINES, b"0")) for schema in schemas),
        duration_ns=grid.duration_ns,
        ended_ns=execution.ended_ns,
        pauses=tuple(pauses),
        limits=scenario.fidelity.model_dump(by_alias=True),
    )


def replay_fidelity(instants: Rows, planned: int) -> ReplayFidelity:
    """The punctuality of the replay."""
    lateness = Distribution.of(row["lateness_ns"] for row in instants)
    applied = len({row["k"] for row in instants})
    return ReplayFidelity(planned, applied, lateness, sum(row["mismatches"] or 0 for row in instants))


def cpu_fidelity(load: Rows, uses: Sequence[CpuUse]) -> CpuFidelity:
    """The load, with the seconds counted in which satellites or strangers took CPU time from each other.

    Args:
        uses: the CPUs that satellites used while they worked.
    """
    cpus = load[0]["cpus"] if load else None
    full = [row for row in load if (row["busy_ratio"] or 0.0) > FULL_RATIO]

    def wanted(from_ns: int, to_ns: int) -> float:
        return sum(use.mean_cpus(from_ns, to_ns) for use in uses)

    # satellites that answer or train explain full CPUs if they use the last one, and want no more than all
    saturated = sum(
        not row["cpus"] - 1 < wanted(row["t_ns"] - NS_PER_S, row["t_ns"]) <= row["cpus"] + CPU_TOLERANCE for row in full
    )
    spans = [(begin_ns, end_ns) for use in uses for begin_ns, end_ns in use.spans if end_ns > begin_ns]
    return CpuFidelity(
        samples=len(load),
        cpus=cpus,
        busy_mean_ratio=mean(load, "busy_ratio"),
        full_ratio=len(full) / len(load) if load else None,
        saturated_ratio=saturated / len(load) if load else None,
        crowded_answers=sum(wanted(*span) > cpus + CPU_TOLERANCE for span in spans) if cpus else 0,
        steal_mean_ratio=mean(load, "steal_ratio"),
        pressure_mean_ratio=mean(load, "pressure_ratio"),
        wakeup_lateness_ns=Distribution.of(row["wakeup_lateness_ns"] for row in load),
    )


def _ending_reasons(execution: Execution | None, deaths: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What speaks against how it ended, and against what ended in it."""
    if execution is None:
        yield "run: it left no execution.json, but every run that comes to its end does; it was killed, so run it again"
    elif execution.error:
        yield f"run: it ended with an error, but only a complete run counts: {execution.error}"
    for row in deaths[:MOST_DEATHS_TOLD]:
        program = row["what"].startswith("program ")
        remedy = "mend its command, or say that it may_fail" if program else "see logs/, or raise its memory"
        yield f"{incident_text(row)}, but it was to last; {remedy}"
    if (more := len(deaths) - MOST_DEATHS_TOLD) > 0:
        yield f"deaths: {more} more are in incidents.parquet"


def incident_text(row: Mapping[str, Any]) -> str:
    """A row of incidents.parquet in one sentence."""
    where = f" on {row['node']}" if row["node"] else ""
    right = f"; put right at {row['t_end_ns'] / NS_PER_S:.3f} s" if row["t_end_ns"] is not None else ""
    return f"{row['what']}{where} at t = {row['t_ns'] / NS_PER_S:.3f} s: {row['cause']}{right}"


def _replay_reasons(replay: ReplayFidelity, readback: int | None, limit_ns: int | None) -> Iterator[str]:
    """What speaks against the replay; without a limit no change may be late at all."""
    if replay.applied_instants < replay.planned_instants:
        yield (
            f"replay: {replay.applied_instants} of {replay.planned_instants} instants were applied, but the plan needs "
            "all of them; run it again to its end"
        )
    if limit_ns is None and replay.lateness_ns.max:
        yield (
            f"replay: a change was late by {replay.lateness_ns.max:.0f} ns, but none may be late in exact time; report "
            "it as a fault of isl-emu"
        )
    elif (found_ns := replay.lateness_ns.p99) is not None and limit_ns is not None and found_ns > limit_ns:
        what = "replay: the 99th percentile of how late changes were"
        yield beyond(what, found_ns, limit_ns, "use a longer step or fewer links")
    differing = max(replay.mismatches, readback or 0)
    if differing:
        found = "1 setting differs" if differing == 1 else f"{differing} settings differ"
        yield f"kernel: {found} from the plan when read back, but none may; see execution in provenance.json"


def _cpu_reasons(cpu: CpuFidelity, scenario: Scenario) -> Iterator[str]:
    limit = scenario.fidelity.cpu_saturated_ratio
    if cpu.saturated_ratio is not None and cpu.saturated_ratio > limit:
        yield (
            f"CPU: it was saturated for {cpu.saturated_ratio:.1%} of the time, but at most {limit:.1%} is allowed; "
            "give the run a machine of its own, or let fewer satellites answer at once"
        )


@dataclass(frozen=True)
class SurroundingsFidelity:
    """What `isl_emu.machine.load` saw: means over the emulated time, pauses left out; None if not in a guest.

    Of several guests each figure is that of the guest for which it is largest.

    Inside a guest kernel, time that another process took looks like time that the guest's own programs took.
    """

    samples: int
    guest_busy_mean_ratio: float | None
    guest_waiting_mean_ratio: float | None
    steal_mean_ratio: float | None
    pressure_mean_ratio: float | None


def surroundings_fidelity(outside: Rows, spans: Sequence[tuple[int, int]]) -> SurroundingsFidelity:
    """The load around the guest.

    Args:
        spans: from when to when the run was live and did not stand, UTC ns.
    """
    live = [  # the rows of seconds that were wholly in one of the spans
        row for row in outside if any(begin_ns + NS_PER_S <= row["utc_ns"] <= end_ns for begin_ns, end_ns in spans)
    ]
    names = ("guest_busy_ratio", "guest_waiting_ratio", "steal_ratio", "pressure_ratio")
    guests = [[row for row in live if row.get("guest") == guest] for guest in {row.get("guest") for row in live}]
    means = ([mean(own, name) for own in guests] for name in names)
    return SurroundingsFidelity(
        len(live), *(max((one for one in found if one is not None), default=None) for found in means)
    )


def live_spans(execution: Execution, pauses: Rows, slowdown: float) -> list[tuple[int, int]]:
    """From when to when a run was live and did not stand, UTC ns; nothing if that is not known."""
    if execution.t0_utc is None or execution.ended_ns is None:
        return []
    at_ns, t_ns, spans = round(datetime.fromisoformat(execution.t0_utc).timestamp() * NS_PER_S), 0, []
    for stop in [*pauses, {"t_ns": execution.ended_ns, "lasted_ns": 0}]:
        until_ns = at_ns + round((stop["t_ns"] - t_ns) * slowdown)
        spans.append((at_ns, until_ns))
        at_ns, t_ns = until_ns + stop["lasted_ns"], stop["t_ns"]
    return spans


def surroundings_reasons(
    found: SurroundingsFidelity, own_steal_ratio: float | None, scenario: Scenario
) -> Iterator[str]:
    """Why the run is invalid, if others took its CPU.

    Args:
        own_steal_ratio: what the kernel of the run saw itself; a guest's sees none.
    """
    limit, waiting = scenario.fidelity.cpu_waiting_ratio, found.guest_waiting_mean_ratio
    steal = own_steal_ratio if found.steal_mean_ratio is None else found.steal_mean_ratio
    if waiting is not None and waiting > limit:
        yield (
            f"CPU: the guest kernel waited for its CPU for {waiting:.1%} of the time, because other processes had it, "
            f"but at most {limit:.1%} is allowed; end them, or give the run a machine of its own"
        )
    if steal is not None and steal > limit:
        yield (
            f"CPU: a hypervisor took {steal:.1%} of the machine's CPU time, but at most {limit:.1%} is allowed; use a "
            "machine that shares its CPUs with fewer others"
        )


def mean(rows: Rows, key: str) -> float | None:
    """The mean of a column's known values."""
    values = [row[key] for row in rows if row[key] is not None]
    return sum(values) / len(values) if values else None
