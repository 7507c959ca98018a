"""The coordinator with ranks that do as the test says: who trains with whom after a loss, and what is written down."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from isl_emu.errors import WorkloadError
from isl_emu.parts.training.coordinator import Coordinator
from isl_emu.runs.clock import RunTimes
from isl_emu.scenario.training import Modelled, Training
from isl_emu.timebase import ManualClock
from isl_emu.units import NS_PER_S

NAMES = ("a", "b", "c", "d")
STEP_NS = NS_PER_S
FAR_NS = 1000 * NS_PER_S


class FakeRanks:
    """Ranks that answer an order at once, as `act` says: the steps that each does before it fails.

    `act` gets (order, name) and returns (steps done, what comes then): "fine", "failed", "silent" or "gone".
    """

    def __init__(self, clock: ManualClock, act: Callable[[Mapping[str, Any], str], tuple[int, str]]):
        self.events: queue.Queue[tuple[str, dict[str, Any]]] = FastQueue(clock)
        self.orders: list[dict[str, Any]] = []
        self.apart: set[str] = set()  # those that cannot be reached
        self._clock, self._act = clock, act

    def train(self, names: Sequence[str], order: Mapping[str, Any]) -> None:
        self.orders.append({**order, "names": list(names)})
        plans = {name: self._act(order, name) for name in names}
        for offset in range(max(steps for steps, _ in plans.values())):
            self._clock.advance_ns(STEP_NS)
            for name, (steps, _) in plans.items():
                if offset < steps:
                    step = {"event": "step", "ring": order["ring"], "step": order["first"] + offset}
                    self.events.put((name, step))
        for name, (_, then) in plans.items():
            if then in ("failed", "gone", "broken"):
                self.events.put((name, {"event": then, "ring": order["ring"], "why": "the test wants it"}))

    def call(self, caller: str, others: Sequence[str]) -> set[str]:
        return {name for name in others if (name in self.apart) == (caller in self.apart)}


class FastQueue(queue.Queue):
    """A queue in which waiting for an event takes time by the test's clock alone."""

    def __init__(self, clock: ManualClock):
        super().__init__()
        self._clock = clock

    def get(self, block: bool = True, timeout: float | None = None):
        try:
            return super().get(block=False)
        except queue.Empty:
            self._clock.advance_ns(round((timeout or 0) * NS_PER_S))
            raise


class FakeWays:
    """Where another ring is best from the sixth second on, if the job asks again."""

    def __init__(self, job: Training):
        self._turns = job.reorder == "each-step"

    def ring(self, names: Sequence[str], t_ns: int) -> list[str]:
        return sorted(names, reverse=self._turns and t_ns >= 5 * NS_PER_S)


def job(**changes: Any) -> Training:
    modelled = Modelled(gradient="4 MB", compute_time="1 s")
    return Training(**{"steps": 4, "timeout": "2 s", "modelled": modelled, **changes})


def lead(training: Training, act, apart: Callable[[FakeRanks], None] = lambda ranks: None, until_ns: int = FAR_NS):
    """The rows and the orders of a job."""
    clock, rows = ManualClock(), []
    ranks = FakeRanks(clock, act)
    apart(ranks)

    def record(step, attempt, outcome, lost):
        rows.append((step, outcome, "".join(attempt.members), "".join(lost)))

    stopped = threading.Event()
    Coordinator(training, NAMES, ranks, FakeWays(training), record, RunTimes(0, until_ns), clock, stopped).run()
    return rows, ranks.orders


def steps_of(order: Mapping[str, Any]) -> int:
    return 10**6 if order["last"] is None else order["last"] - order["first"] + 1


def test_all_steps_are_done_under_one_order() -> None:
    rows, orders = lead(job(), lambda order, name: (steps_of(order), "fine"))
    assert rows == [(step, "completed", "abcd", "") for step in range(4)]
    assert [(order["ring"], order["first"], order["last"], order["source"]) for order in orders] == [(1, 0, 3, None)]


def test_the_ring_follows_the_sky_at_each_step_and_keeps_its_number_while_it_is_the_same() -> None:
    rows, orders = lead(job(steps=7, reorder="each-step"), lambda order, name: (1, "fine"))
    assert [members for _, _, members, _ in rows] == ["abcd"] * 5 + ["dcba"] * 2
    assert [order["ring"] for order in orders] == [1, 1, 1, 1, 1, 2, 2]


def lose_c(order, name):
    """In the first ring nobody gets past step 1, for c is lost."""
    return (1, "failed") if order["ring"] == 1 else (steps_of(order), "fine")


def test_the_others_go_on_without_a_lost_one() -> None:
    rows, orders = lead(job(rejoin=False), lose_c, lambda ranks: ranks.apart.add("c"))
    assert rows == [
        (0, "completed", "abcd", ""),
        (1, "lost", "abcd", "c"),
        *((step, "completed", "abd", "") for step in (1, 2, 3)),
    ]
    assert orders[1]["source"] is None  # all have the weights of step 0


def test_the_first_loss_ends_the_job_where_it_is_to_stop() -> None:
    rows, orders = lead(job(on_loss="stop"), lose_c, lambda ranks: ranks.apart.add("c"))
    assert rows == [(0, "completed", "abcd", ""), (1, "stopped", "abcd", "c")]
    assert len(orders) == 1


def test_when_all_can_be_reached_after_all_the_step_is_repeated() -> None:
    rows, _ = lead(job(steps=2), lose_c)
    assert rows == [(0, "completed", "abcd", ""), (1, "interrupted", "abcd", ""), (1, "completed", "abcd", "")]


def test_who_has_done_a_step_hands_its_weights_to_those_who_have_not() -> None:
    def act(order, name):
        return (2 if name == "b" else 1, "failed") if order["ring"] == 1 else (steps_of(order), "fine")

    rows, orders = lead(job(rejoin=False), act, lambda ranks: ranks.apart.add("c"))
    assert rows[:3] == [(0, "completed", "abcd", ""), (1, "handed-over", "abcd", "c"), (2, "completed", "abd", "")]
    assert (orders[1]["source"], orders[1]["first"]) == ("b", 2)


def test_what_only_the_lost_one_has_done_is_done_again() -> None:
    def act(order, name):
        return (2 if name == "c" else 1, "failed") if order["ring"] == 1 else (steps_of(order), "fine")

    rows, orders = lead(job(rejoin=False), act, lambda ranks: ranks.apart.add("c"))
    assert rows[1:3] == [(1, "lost", "abcd", "c"), (1, "completed", "abd", "")]
    assert orders[1]["source"] is None


def test_who_never_says_anything_again_is_lost() -> None:
    def act(order, name):
        return (1, "silent" if name == "d" else "failed") if order["ring"] == 1 else (steps_of(order), "fine")

    rows, _ = lead(job(), act)
    assert rows[1:3] == [(1, "lost", "abcd", "d"), (1, "completed", "abc", "")]


def test_who_is_gone_is_not_looked_for() -> None:
    def act(order, name):
        return (1, "gone" if name == "d" else "failed") if order["ring"] == 1 else (steps_of(order), "fine")

    rows, orders = lead(job(), act)
    assert rows[1:3] == [(1, "lost", "abcd", "d"), (1, "completed", "abc", "")]
    assert orders[-1]["last"] == 3  # nobody is waited for


def test_a_lost_one_comes_back_and_takes_over_the_weights() -> None:
    returned = threading.Event()

    def act(order, name):
        if order["ring"] == 1:
            return 1, "failed"
        if order["first"] == 3:
            ranks_seen[0].apart.clear()
            returned.set()
        return steps_of(order), "fine"

    ranks_seen: list[FakeRanks] = []

    def part(ranks: FakeRanks) -> None:
        ranks.apart.add("c")
        ranks_seen.append(ranks)

    rows, orders = lead(job(steps=200), act, part)
    assert returned.is_set()
    back = next(order for order in orders if order["ring"] > 1 and "c" in order["members"])
    assert back["source"] in ("a", "b", "d")
    assert rows[-1] == (199, "completed", "abcd", "")
    alone = [order for order in orders if order["ring"] > 1 and "c" not in order["members"]]
    assert all(order["last"] == order["first"] for order in alone)  # so that it can come back after any step


def test_the_larger_part_of_a_divided_sky_goes_on() -> None:
    rows, _ = lead(job(rejoin=False), lose_c, lambda ranks: ranks.apart.update("abc"))
    assert rows[1:3] == [(1, "lost", "abcd", "d"), (1, "completed", "abc", "")]


def test_the_end_of_the_run_ends_the_job_and_its_open_step_is_recorded() -> None:
    rows, _ = lead(job(steps=None), lambda order, name: (2, "silent"), until_ns=10 * NS_PER_S)
    assert rows == [(0, "completed", "abcd", ""), (1, "completed", "abcd", ""), (2, "unfinished", "abcd", "")]


def test_a_rank_that_cannot_work_at_all_is_an_error() -> None:
    with pytest.raises(WorkloadError, match="training training on a: the test wants it"):
        lead(job(), lambda order, name: (0, "broken"))
