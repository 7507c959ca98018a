"""Who trains with whom, step by step: forms the ring, notices that a satellite is lost, heals or stops.

The coordinator stands outside of the sky: what it tells the ranks and what they tell it takes no time and is never
lost. All that it knows about who can reach whom comes from the ranks: from lines on which nothing moves any more, and
from calls over the emulated network.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from isl_emu.errors import WorkloadError
from isl_emu.parts.training.meeting import largest_group
from isl_emu.runs.clock import RunTimes
from isl_emu.scenario.training import Training
from isl_emu.timebase import Clock
from isl_emu.units import NS_PER_S

Event = dict[str, Any]
GRACE = 3  # time-outs after a first failure, until which all others have noticed
LOOK_NS = NS_PER_S // 5
FEWEST = 2
MOST_FAILURES = 5  # in a row, of one step, without any loss


class Ranks(Protocol):
    """The ranks of a job, one on each satellite, by its name; each tells what happens by an event in `events`.

    ``{"event": "step", "ring", "step", ...}`` when a step is done, ``{"event": "failed", "ring", "why"}`` when its ring
    no longer works, ``{"event": "gone", "why"}`` when it will never do anything again.
    """

    events: queue.Queue[tuple[str, Event]]

    def train(self, names: Sequence[str], order: Mapping[str, Any]) -> None:
        """Order some ranks to train: the number of the `ring`, its `members` in their order, the `first` and the `last`
        step (None: on and on), and the `source` from which the others first take the weights (None: nobody needs to).
        """

    def call(self, caller: str, others: Sequence[str]) -> set[str]:
        """Those of some satellites who answer a call from another over the network."""


class Ways(Protocol):
    """What the plan says about the ways between satellites."""

    def ring(self, names: Sequence[str], t_ns: int) -> list[str]:
        """The order in which they form a ring."""


@dataclass
class RingAttempt:
    """What is known about the steps that a ring was ordered to do."""

    ring: int
    members: list[str]
    first: int
    last: int | None
    begun_ns: int
    source: str | None
    progress: dict[str, int]  # the next step of each member
    reports: dict[int, dict[str, Event]] = field(default_factory=dict)  # by step and member
    failed: dict[str, Event] = field(default_factory=dict)
    grace_ends_ns: int | None = None

    @property
    def finished(self) -> set[str]:
        """Members that have done all steps."""
        return {name for name in self.members if self.last is not None and self.progress[name] > self.last}


class Coordinator:
    """Leads one training job to its end.

    Args:
        names: its satellites.
        record: takes what became of each step: its number, what is known about it, outcome, lost members.
        times: when to begin and when to end.
        stopped: set from outside to end early.
    """

    def __init__(
        self,
        job: Training,
        names: Sequence[str],
        ranks: Ranks,
        ways: Ways,
        record: Callable[[int, RingAttempt, str, Sequence[str]], None],
        times: RunTimes,
        clock: Clock,
        stopped: threading.Event,
    ):
        self._job, self._names, self._ranks, self._ways = job, tuple(names), ranks, ways
        self._record, self._clock, self._stopped = record, clock, stopped
        self._times = times
        self._present = list(names)  # those that train
        self._gone: set[str] = set()  # those that never will again
        self._busy: set[str] = set()  # those that were given an order and have not said how it ended
        self._done = dict.fromkeys(names, 0)  # the next step of each, whose weights it has
        self._ring = 0
        self._order: tuple[str, ...] = ()  # of the ring
        self._seeker: threading.Thread | None = None
        self._failures = 0  # in a row, without a loss or a finished step
        self._found: set[str] = set()  # lost ones that can be reached again

    def run(self) -> None:
        """Train until all steps are done, the run ends, or a loss ends it.

        Raises:
            WorkloadError: a rank cannot do its work at all.
        """
        self._clock.wait_until_ns(self._times.t0_ns, self._stopped)
        steps = self._job.steps
        while not self._over() and len(self._present) >= FEWEST and (steps is None or self._next_step() < steps):
            attempt = self._begin()
            # Listen until everybody has finished or failed, or has had long enough after the first failure
            while not self._over() and not (attempt.finished | attempt.failed.keys()).issuperset(attempt.members):
                if attempt.grace_ends_ns is not None and self._clock.now_ns() >= attempt.grace_ends_ns:
                    break
                self._hear(attempt)
            self._settle(attempt)

    def _over(self) -> bool:
        return self._stopped.is_set() or self._clock.now_ns() >= self._times.until_ns

    def _next_step(self) -> int:
        return max((self._done[name] for name in self._present), default=0)

    def _begin(self) -> RingAttempt:
        """Order everybody who is there to train."""
        self._take_back()
        step, now_ns = self._next_step(), self._clock.now_ns()
        behind = [name for name in self._present if self._done[name] < step]
        source = next(name for name in self._present if self._done[name] == step) if behind else None
        order = self._order  # an earlier ring is kept, with its lines, if it may and still works
        if set(order) != set(self._present) or self._job.reorder == "each-step":
            order = tuple(self._ways.ring(self._present, now_ns - self._times.t0_ns))
        if source is not None or order != self._order:
            self._ring, self._order = self._ring + 1, order
        last = None if self._job.steps is None else self._job.steps - 1
        if self._job.reorder == "each-step" or self._missing():
            last = step  # the ring may change after it
        members = list(self._order)
        attempt = RingAttempt(self._ring, members, step, last, now_ns, source, dict.fromkeys(members, step))
        self._busy.update(members)
        told = {"ring": attempt.ring, "members": members, "first": step, "last": last, "source": source}
        self._ranks.train(members, told)
        return attempt

    def _missing(self) -> list[str]:
        """Those that may come back."""
        if not self._job.rejoin:
            return []
        return [name for name in self._names if name not in self._present and name not in self._gone]

    def _hear(self, attempt: RingAttempt | None) -> None:
        """Take in one event, if one comes soon."""
        try:
            name, event = self._ranks.events.get(timeout=self._clock.real_s(LOOK_NS))
        except queue.Empty:
            return
        if event["event"] == "broken":
            raise WorkloadError(
                f"training {self._job.name} on {name}: {event['why']}, but every rank must live; see its log"
            )
        if event["event"] == "gone":
            self._gone.add(name)
        if event["event"] == "step":
            self._done[name] = event["step"] + 1
        if attempt is not None and name in attempt.members and event.get("ring", attempt.ring) == attempt.ring:
            self._note(attempt, name, event)
        elif event["event"] != "step":
            self._busy.discard(name)

    def _note(self, attempt: RingAttempt, name: str, event: Event) -> None:
        if event["event"] == "step":
            attempt.progress[name] = event["step"] + 1
            reports = attempt.reports.setdefault(event["step"], {})
            reports[name] = event
            if len(reports) == len(attempt.members):
                self._record(event["step"], attempt, "completed", ())
                del attempt.reports[event["step"]]
            if name in attempt.finished:
                self._busy.discard(name)
            return
        self._busy.discard(name)
        attempt.failed[name] = event
        if attempt.grace_ends_ns is None:
            attempt.grace_ends_ns = self._clock.now_ns() + GRACE * self._job.timeout_ns

    def _settle(self, attempt: RingAttempt) -> None:
        """What becomes of a ring that did not finish."""
        if self._over():
            self._record_open(attempt, "unfinished", (), attempt.first)
            return
        if not attempt.failed:
            return
        self._order = ()  # its lines are broken
        group = self._reachable([name for name in attempt.members if name not in self._busy | self._gone])
        lost = [name for name in attempt.members if name not in group]
        if self._job.on_loss == "stop" or (len(group) < FEWEST and not self._job.rejoin):
            self._record_open(attempt, "stopped", lost, attempt.first)
            self._present = []
            return
        known = max((self._done[name] for name in group), default=0)
        self._record_open(attempt, "lost" if lost else "interrupted", lost, known)
        self._failures = 0 if lost or known > attempt.first else self._failures + 1
        if self._failures == MOST_FAILURES:
            name, event = next(iter(attempt.failed.items()))
            raise WorkloadError(
                f"training {self._job.name}: step {attempt.first} failed {MOST_FAILURES} times in a row though all "
                f"could be reached ({name}: {event['why']}), but it must end some time; raise timeout, or send less"
            )
        self._present = group
        self._await_company()

    def _record_open(self, attempt: RingAttempt, outcome: str, lost: Sequence[str], known: int) -> None:
        """Record the steps that not all members have done, and else the one that all were in.

        Args:
            known: the first step that nobody who goes on has done; earlier ones are handed over to the others.
        """
        for step in sorted(attempt.reports) or [max(attempt.progress.values())]:
            self._record(step, attempt, "handed-over" if step < known else outcome, lost)

    def _reachable(self, names: Sequence[str]) -> list[str]:
        """The largest group of them that reach each other."""
        return largest_group(names, self._ranks.call)

    def _await_company(self) -> None:
        """With fewer than two left nothing can be summed: wait until some can reach each other again."""
        while len(self._present) < FEWEST and not self._over():
            if len(self._gone) > len(self._names) - FEWEST:
                self._present = []
                return
            self._clock.wait_until_ns(self._clock.now_ns() + self._job.timeout_ns, self._stopped)
            while not self._ranks.events.empty():
                self._hear(None)
            idle = [name for name in self._names if name not in self._busy | self._gone]
            self._present = self._reachable(idle)

    def _take_back(self) -> None:
        """Take in those who were lost and have been reached since, and have the others looked for."""
        back = [name for name in self._missing() if name in self._found and name not in self._busy]
        self._found.difference_update(back)
        self._present = [name for name in self._names if name in self._present or name in back]
        missing = [name for name in self._missing() if name not in self._busy]
        if missing and (self._seeker is None or not self._seeker.is_alive()):
            caller = self._present[0]

            def seek() -> None:
                self._found.update(self._ranks.call(caller, missing))
                self._clock.wait_until_ns(self._clock.now_ns() + self._job.timeout_ns // 2, self._stopped)

            self._seeker = threading.Thread(target=seek, daemon=True)
            self._seeker.start()
