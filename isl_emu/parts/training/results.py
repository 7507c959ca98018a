"""What a training job writes down, one line a step of all who took part; the table of steps, and its section.

The section tells of steps and their outcomes, times, bytes and rates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from isl_emu.parts.training.collectives import Kind, Schedule, sent_elements
from isl_emu.parts.training.coordinator import Event, RingAttempt
from isl_emu.parts.training.planned_ways import PlannedWays
from isl_emu.runs.journal import Journal
from isl_emu.scenario.training import Training
from isl_emu.tables.schema import COUNT, NS, PATH, RATIO, TEXT, TIMES, column, schema
from isl_emu.tables.text import INDENT, counted, facts, shares, table, three_digits, times, wrapped
from isl_emu.timebase import Clock
from isl_emu.units import NS_PER_S

JOURNAL = "training"
ELEMENT_BYTE = 4  # float32
Sums = Callable[[Sequence[str]], tuple[Kind, Schedule]]  # how some members form their sum

TRAINING = schema(
    column("job", TEXT, "", "name of the training in the scenario"),
    column("gradients", TEXT, "", "real, or modelled: bytes of the right number after a stated computing time"),
    column("collective", TEXT, "", "how the sum was formed: ring, tree or hierarchical"),
    column("step", COUNT, "", "number of the synchronisation, from 0; it occurs again if it had to be repeated"),
    column("outcome", TEXT, "", "completed, handed-over, lost, interrupted, stopped or unfinished"),
    column("local_steps", COUNT, "", "steps that each satellite took by itself since the synchronisation before"),
    column("ring", COUNT, "", "number of the ring; raised whenever its lines are made anew"),
    column("participants", PATH, "", "satellites that took part, in the order of the ring"),
    column("lost", PATH, "", "those among them that could not be reached afterwards"),
    column("t_start_ns", NS, "ns", "when the first participant began to compute; null if none came to the end"),
    column("t_end_ns", NS, "ns", "when the last participant had the sum, or when the step was given up"),
    column("compute_ns", TIMES, "ns", "of each participant: its computing; null if it did not come to the end"),
    column("communication_ns", TIMES, "ns", "of each participant: the wait from its computing until it had the sum"),
    column("sent_byte", TIMES, "byte", "of each participant: sent for the sum, without headers and repetitions"),
    column("received_byte", TIMES, "byte", "of each participant: received for the sum"),
    column("theory_byte", NS, "byte", "what each has to send, in the mean; in a ring 2 (n - 1) / n x size"),
    column("collective_ns", NS, "ns", "from the last participant's end of computing until all had the sum"),
    column("predicted_ns", NS, "ns", "the least for that: propagation and serialisation on the planned paths"),
    column("handed_over_byte", NS, "byte", "weights that participants took over from another before the step"),
    column("tokens", NS, "tokens", "trained on by all participants; 0 unless completed"),
    column("loss", RATIO, "", "training loss, mean of the participants; null if the gradients are modelled"),
)


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
        losses = [report["loss"] for report in done if report["loss"] is not None]
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
            "loss": sum(losses) / len(losses) if losses else None,
        }
        if outcome == "completed":  # by all
            computed_ns = max(report["t_computed_ns"] for report in done)
            ended_ns = max(report["t_ended_ns"] for report in done)
            line |= {
                "t_end_ns": ended_ns,
                "collective_ns": ended_ns - computed_ns,
                "predicted_ns": self._ways.predicted_ns(rounds, attempt.members, ELEMENT_BYTE, computed_ns),
                "tokens": len(attempt.members) * self._job.local_steps * tokens_per_step(self._job),
            }
        self._journal.append(line)


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


Row = Mapping[str, Any]
Rows = Sequence[Row]


def steps_by_job(rows: Rows) -> dict[str, list[Row]]:
    """The rows of each training."""
    jobs: dict[str, list[Row]] = {}
    for row in rows:
        jobs.setdefault(row["job"], []).append(row)
    return jobs


def training_section(rows: Rows) -> Iterator[str]:
    for job, steps in steps_by_job(rows).items():
        yield from _job(job, steps)


def _job(job: str, rows: Rows) -> Iterator[str]:
    satellites = {name for row in rows for name in row["participants"]}
    sums = " and ".join(dict.fromkeys(row["collective"] for row in rows))
    yield f"TRAINING  {job}: {counted(len(satellites), 'satellite')}, {rows[0]['gradients']} gradients, {sums}"
    counts = Counter(row["outcome"] for row in rows).most_common()
    text = f"{counted(len(rows), 'step')}: " + ", ".join(f"{count} {outcome}" for outcome, count in counts)
    lost = dict.fromkeys(name for row in rows for name in row["lost"])
    yield from wrapped(INDENT, f"{text} · lost on the way: {', '.join(lost)}" if lost else text)
    done = [row for row in rows if row["outcome"] == "completed"]
    if not done:
        return
    yield from wrapped(INDENT, facts(*step_figures(rows, done)))
    yield from table(("", "", "p50", "p90", "p95", "p99"), step_rows(done), left=2)
    yield from wrapped(INDENT, step_bytes(done))


def step_figures(rows: Rows, done: Rows) -> Iterator[str]:
    """What a job came to, a few words each: pace, loss, rings, weights handed over.

    Args:
        rows: of a job. done: those of them that were completed.
    """
    if not done:
        return
    tokens = sum(row["tokens"] for row in done)
    span_ns = max(row["t_end_ns"] for row in done) - min(row["t_start_ns"] for row in done)
    losses = [row["loss"] for row in done if row["loss"] is not None]
    orders = len({tuple(row["participants"]) for row in done})
    handed_over_byte = sum(row["handed_over_byte"] for row in rows)
    if tokens and span_ns:
        yield f"{tokens * NS_PER_S / span_ns:,.0f} tokens/s"
    if losses:
        yield f"loss {three_digits(losses[0])} at first, {three_digits(losses[-1])} at last"
    if orders > 1:
        yield counted(orders, "ring")
    if handed_over_byte:
        yield f"{handed_over_byte / 1e6:,.3g} MB of weights handed over"


def step_rows(done: Rows) -> list[tuple[str, ...]]:
    """Each time of completed steps, what it is, and its percentiles."""
    waits = [max(row["communication_ns"]) for row in done]
    lengths = [row["t_end_ns"] - row["t_start_ns"] for row in done]
    return [
        ("step", "from synchronisation to synchronisation", *times(lengths)),
        ("compute", "the slowest satellite", *times(max(row["compute_ns"]) for row in done)),
        ("wait", "for the sum, the longest", *times(waits)),
        ("", "its share of the step", *shares(wait / length for wait, length in zip(waits, lengths))),
        ("sum", "from the last one's computing on", *times(row["collective_ns"] for row in done)),
        ("", "the least by the plan", *times(row["predicted_ns"] for row in done)),
    ]


def step_bytes(done: Rows) -> str:
    """What a satellite sends for a sum, and the rate at which it does, next to what the plan allows at the most."""
    sent = median(sum(row["sent_byte"]) / len(row["sent_byte"]) for row in done)
    theory = median(row["theory_byte"] for row in done)
    bounds = [_rate(row, "predicted_ns") for row in done if row["predicted_ns"]]
    bound = f" of at most {three_digits(median(bounds))}" if bounds else ""
    return facts(
        f"a satellite sends {sent / 1e6:,.4g} MB for a sum, {theory / 1e6:,.4g} in theory",
        f"at {three_digits(median(_rate(row, 'collective_ns') for row in done))}{bound} Mbit/s",
    )


def _rate(row: Row, key: str) -> float:
    """What is sent over a time, Mbit/s."""
    rate: float = row["theory_byte"] * 8e3 / max(row[key], 1)
    return rate
