"""The course of a run: pauses and ends, at once and at their times, wished for by several at once or taken back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from isl_emu.errors import MachineError
from isl_emu.live.course import Course
from isl_emu.runs.clock import RunClock
from isl_emu.runs.journal import Journal, read_journal
from isl_emu.units import NS_PER_S as S

PATIENCE_S = 60
MS = 1_000_000


class Nodes:
    """What runs in the nodes."""

    def __init__(self) -> None:
        self.frozen = False
        self.fails = False

    def freeze(self) -> None:
        if self.fails:
            raise MachineError("group: does not stand")
        self.frozen = True

    def thaw(self) -> None:
        self.frozen = False


class Run:
    """A run of 1,000 s that began just now, and the threads of its users."""

    def __init__(self, folder: Path, slowdown: float = 1.0):
        self.nodes, self.ended, self._folder = Nodes(), threading.Event(), folder
        self.clock = RunClock.create(folder, slowdown)
        journal = Journal(folder / "pauses.jsonl")
        t0_ns = self.clock.now_ns()
        self.course = Course(self.clock, self.nodes, t0_ns, 1000 * S, self.ended, journal)
        self._users = ThreadPoolExecutor(4)

    def wish(self, act: Callable, at_ns: int | None, cancelled: Callable[[], bool] = lambda: False) -> Future:
        return self._users.submit(act, at_ns, cancelled)

    def soon_ns(self) -> int:
        return self.course.t_ns() + 100 * MS

    @property
    def pauses(self) -> tuple[dict, ...]:
        return read_journal(self._folder / "pauses.jsonl").records


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def test_a_pause_stands_and_leaves_no_gap(run: Run) -> None:
    t_ns = run.course.pause(None, lambda: False)
    assert run.course.paused and run.nodes.frozen
    time.sleep(0.05)
    assert run.course.t_ns() == t_ns
    assert t_ns <= run.course.resume() < t_ns + 10 * S
    assert not run.course.paused and not run.nodes.frozen
    (pause,) = run.pauses
    assert pause["t_ns"] == t_ns and pause["lasted_ns"] >= 50 * MS


@pytest.mark.parametrize("slowdown", [1.0, 3.0])
def test_a_pause_at_a_time_stands_just_there(tmp_path: Path, slowdown: float) -> None:
    run = Run(tmp_path, slowdown)
    at_ns = run.soon_ns()
    assert run.wish(run.course.pause, at_ns).result(PATIENCE_S) == at_ns
    assert abs(run.course.t_ns() - at_ns) <= 1


def test_an_end_at_a_time_is_the_last_that_happens(run: Run) -> None:
    at_ns = run.soon_ns()
    assert run.wish(run.course.end, at_ns).result(PATIENCE_S) == at_ns
    assert run.ended.is_set() and run.course.ended_ns() == at_ns
    time.sleep(0.05)
    assert run.course.t_ns() == at_ns


def test_a_pause_before_the_end_does_not_take_it_away(run: Run) -> None:
    first_ns = run.soon_ns()
    ending = run.wish(run.course.end, first_ns + 100 * MS)
    assert run.wish(run.course.pause, first_ns).result(PATIENCE_S) == first_ns
    assert not run.ended.is_set()
    run.course.resume()
    assert ending.result(PATIENCE_S) == first_ns + 100 * MS


def test_a_run_that_stands_can_be_ended(run: Run) -> None:
    t_ns = run.course.pause(None, lambda: False)
    assert run.course.end(None, lambda: False) == t_ns
    assert run.course.ended_ns() == t_ns
    run.course.close()
    assert not run.nodes.frozen and len(run.pauses) == 1


def test_a_wish_that_is_taken_back_stops_nothing(run: Run) -> None:
    cancelled = threading.Event()
    wishes = [run.wish(act, 900 * S, cancelled.is_set) for act in (run.course.pause, run.course.end)]
    time.sleep(0.05)
    cancelled.set()
    assert [wish.result(PATIENCE_S) for wish in wishes] == [None, None]
    assert not run.clock.stands and not run.pauses
    assert run.course.pause(None, lambda: False) is not None  # another one may be wished for


def test_a_pause_to_come_is_taken_back_by_resume(run: Run) -> None:
    pausing = run.wish(run.course.pause, 900 * S)
    time.sleep(0.05)
    run.course.resume()
    assert pausing.result(PATIENCE_S) is None


def test_the_end_of_the_run_answers_whoever_still_waits(run: Run) -> None:
    waiting = run.wish(run.course.pause, 900 * S)
    run.course.end_now()
    assert waiting.result(PATIENCE_S) is None
    assert 0 < run.course.ended_ns() < 900 * S


@pytest.mark.parametrize("at_ns", [0, -S, 1000 * S, 5000 * S])
def test_times_that_do_not_come_are_refused(run: Run, at_ns: int) -> None:
    for act in (run.course.pause, run.course.end):
        with pytest.raises(MachineError, match="choose a time still to come"):
            act(at_ns, lambda: False)


def test_what_contradicts_is_refused(run: Run) -> None:
    with pytest.raises(MachineError, match="does not stand"):
        run.course.resume()
    run.course.pause(None, lambda: False)
    with pytest.raises(MachineError, match="stands at .* once at a time"):
        run.course.pause(None, lambda: False)


def test_nodes_that_do_not_stand_let_the_run_go_on(run: Run) -> None:
    run.nodes.fails = True
    with pytest.raises(MachineError, match="does not stand"):
        run.course.pause(None, lambda: False)
    assert not run.course.paused and not run.clock.stands


def test_a_run_that_nobody_touched_ends_with_its_plan(run: Run) -> None:
    run.course.close()
    assert 0 <= run.course.ended_ns() < 900 * S
    assert not run.pauses
