"""What a training job writes down: one line a step, of all who took part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from isl_emu.parts.training.collectives import Kind, Schedule, sent_elements
from isl_emu.parts.training.coordinator import Event, RingAttempt
from isl_emu.parts.training.planned_ways import PlannedWays
from isl_emu.runs.journal import Journal
from isl_emu.scenario.training import Training
from isl_emu.timebase import Clock

JOURNAL = "training"
ELEMENT_BYTE = 4  # float32
Sums = Callable[[Sequence[str]], tuple[Kind, Schedule]]  # how some members form their sum


class StepRecorder:
    """Writes the journal line of each step of a job.

    Args:
        sums: how members form their sum.
        t0_ns: instant 0 on the clock.
    """

    def __init__(self, job: Training, sums: Sums, ways: PlannedWays, journal: Journal, clock: Clock, t0_ns: int):
        self._job, self._sums, self._ways, self._journal = job, sums, ways, journal
        self._clock, self._t0_ns = clock, t0_ns

    def __call__(self, step: int, attempt: RingAttempt, outcome: str, lost: Sequence[str]) -> None:
        kind, rounds = self._sums(attempt.members)
        reports = attempt.reports.get(step, {})
        done = list(reports.values())
        line = {
            "job": self._job.name,
            "gradients": "real" if self._job.real else "modelled",
            "collective": kind,
            "step": step,
            "outcome": outcome,
            "local_steps": self._job.local_steps,
            "ring": attempt.ring,
            "participants": attempt.members,
            "lost": list(lost),
            **_by_participant([reports.get(name) for name in attempt.members]),
            "t_start_ns": min((report["t_begun_ns"] for report in done), default=None),
            "t_end_ns": self._clock.now_ns() - self._t0_ns,
            "theory_byte": ELEMENT_BYTE * sum(map(sent_elements, rounds)) // len(rounds),
            "handed_over_byte": sum(report["taken_byte"] for report in done),
            "tokens": 0,
            "loss": _mean([report["loss"] for report in done if report["loss"] is not None]),
        }
        self._journal.append(line | (self._completed(attempt, rounds, done) if outcome == "completed" else {}))

    def _completed(self, attempt: RingAttempt, rounds: Schedule, done: Sequence[Event]) -> dict[str, Any]:
        """What is known of a step that all have finished."""
        computed_ns = max(report["t_computed_ns"] for report in done)
        ended_ns = max(report["t_ended_ns"] for report in done)
        return {
            "t_end_ns": ended_ns,
            "collective_ns": ended_ns - computed_ns,
            "predicted_ns": self._ways.predicted_ns(rounds, attempt.members, ELEMENT_BYTE, computed_ns),
            "tokens": len(attempt.members) * self._job.local_steps * tokens_per_step(self._job),
        }


def tokens_per_step(job: Training) -> int:
    """What one satellite trains on in one of its steps."""
    if job.real:
        return job.real.batch * job.real.context
    return (job.modelled.tokens or 0) if job.modelled else 0


def _by_participant(reports: Sequence[Event | None]) -> dict[str, list[int | None]]:
    """The columns that have a value for each participant, in the order of the ring."""

    def each(value: Callable[[Event], int]) -> list[int | None]:
        return [None if report is None else value(report) for report in reports]

    return {
        "compute_ns": each(lambda report: report["t_computed_ns"] - report["t_begun_ns"]),
        "communication_ns": each(lambda report: report["t_ended_ns"] - report["t_computed_ns"]),
        "sent_byte": each(lambda report: report["sent_byte"]),
        "received_byte": each(lambda report: report["received_byte"]),
    }


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
