"""What a training job writes down: one line a step, of all who took part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from isl_emu.scenario.training import Training
from isl_emu.workload.training.coordinator import Attempt, Event

Predict = Callable[[Sequence[str], int], int | None]  # (members, when the last had computed) -> ns


def step_record(
    job: Training, step: int, attempt: Attempt, outcome: str, lost: Sequence[str], ended_ns: int,
    theory_byte: int, predict: Predict, collective: str,
) -> dict[str, Any]:  # fmt: skip
    """The journal line of a step.

    Args:
        ended_ns: when it was given up; counts where nobody finished.
        theory_byte: what a member sends in a sum, in the mean.
        predict: how long the sum takes at least.
        collective: how the sum was formed.
    """
    reports = attempt.reports.get(step, {})
    known = [reports.get(name) for name in attempt.members]

    def each(value: Callable[[Event], int]) -> list[int | None]:
        return [None if report is None else value(report) for report in known]

    done = [report for report in known if report is not None]
    computed_ns = max((report["t_computed_ns"] for report in done), default=None)
    losses = [report["loss"] for report in done if report["loss"] is not None]
    complete = outcome == "completed"
    return {
        "job": job.name,
        "gradients": "real" if job.real else "modelled",
        "collective": collective,
        "step": step,
        "outcome": outcome,
        "local_steps": job.local_steps,
        "ring": attempt.ring,
        "participants": attempt.members,
        "lost": list(lost),
        "t_start_ns": min((report["t_begun_ns"] for report in done), default=None),
        "t_end_ns": max((report["t_ended_ns"] for report in done), default=None) if complete else ended_ns,
        "compute_ns": each(lambda report: report["t_computed_ns"] - report["t_begun_ns"]),
        "communication_ns": each(lambda report: report["t_ended_ns"] - report["t_computed_ns"]),
        "sent_byte": each(lambda report: report["sent_byte"]),
        "received_byte": each(lambda report: report["received_byte"]),
        "theory_byte": theory_byte,
        "collective_ns": max(report["t_ended_ns"] for report in done) - computed_ns if complete else None,
        "predicted_ns": predict(attempt.members, computed_ns) if complete else None,
        "handed_over_byte": sum(report["taken_byte"] for report in done),
        "tokens": len(attempt.members) * job.local_steps * tokens_per_step(job) if complete else 0,
        "loss": sum(losses) / len(losses) if losses else None,
    }


def tokens_per_step(job: Training) -> int:
    """What one satellite trains on in one of its steps."""
    if job.real:
        return job.real.batch * job.real.context
    return (job.modelled.tokens or 0) if job.modelled else 0
