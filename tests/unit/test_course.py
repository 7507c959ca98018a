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


class Calendar:
    """Has virtual time stand, for a run whose clock is the wall's: it only writes down what it is asked."""

    def __init__(self) -> None:
        self.asked: list[int | None] = []

    def hold(self, at_ns: int) -> None:
        self.asked.append(at_ns)

    def go_on(self) -> None:
        self.asked.append(None)

    def wall_s(self) -> float:
        return time.monotonic()


@pytest.fixture
def shared(tmp_path: Path) -> tuple[Course, Calendar, int]:
    """A run of 1,000 s whose guests may be 0.1 s apart; when it began."""
    clock, calendar, journal = RunClock.create(tmp_path, 1.0), Calendar(), Journal(tmp_path / "pauses.jsonl")
    t0_ns = clock.now_ns()
    course = Course(clock, Nodes(), t0_ns, 1000 * S, threading.Event(), journal, calendar, ahead_ns=100 * MS)
    return course, calendar, t0_ns


def test_guests_stand_where_none_of_them_was_yet_and_go_on_until_the_next_pause(shared) -> None:
    course, calendar, t0_ns = shared
    before_ns = course.t_ns()
    at_ns = course.stand("set", None, lambda: False)
    assert at_ns - before_ns >= 100 * MS and not course.paused
    course.release()
    assert calendar.asked == [t0_ns + at_ns + 1, None]
    with pytest.raises(MachineError, match=r"stop: --at is .* its guests are up to 0.100 s apart"):
        course.stand("stop", course.t_ns() + 50 * MS, lambda: False)
    pause_ns = course.t_ns() + 50 * S
    with ThreadPoolExecutor(1) as user:
        pausing = user.submit(course.pause, pause_ns, lambda: False)
        while calendar.asked[-1] is None:
            time.sleep(0.01)
        with pytest.raises(MachineError, match="stop: the run pauses at .*, but --at is"):
            course.stand("stop", 60 * S, lambda: False)
        assert course.stand("fault", None, lambda: False) < pause_ns
        course.release()
        assert calendar.asked[-1] == t0_ns + pause_ns + 1  # still to come
        course.resume()
        assert pausing.result() is None


def test_guests_stand_where_the_run_pauses_and_end_there(shared) -> None:
    course, calendar, t0_ns = shared
    at_ns = course.pause(None, lambda: False)
    assert at_ns >= 100 * MS and course.stand("fault", None, lambda: False) == at_ns
    course.release()
    assert calendar.asked == [t0_ns + at_ns + 1] * 2  # it is as it was
    ended_ns = course.end_here(last=True)
    assert calendar.asked[-1] is None and course.ended_ns() == ended_ns


def test_a_run_whose_time_stands_can_be_ended(shared) -> None:
    """What is to be ended in its nodes needs time to end."""
    course, calendar, t0_ns = shared
    at_ns = course.pause(None, lambda: False)
    course.end(None, lambda: False)
    ended_ns = course.ended_ns()
    course.close()
    assert calendar.asked == [t0_ns + at_ns + 1, None]
    time.sleep(0.01)
    assert course.t_ns() == ended_ns  # nothing happens after the end


def test_nobody_waits_for_guests_that_are_over_first(shared) -> None:
    course, _, _ = shared
    late = Course(course._clock, Nodes(), course._t0_ns, 50 * MS, threading.Event(), course._pauses, Calendar(), S)
    with pytest.raises(MachineError, match=r"fault: the run is at .* it is over before all of them do it"):
        late.stand("fault", None, lambda: False)


def test_a_run_that_nobody_touched_ends_with_its_plan(run: Run) -> None:
    run.course.close()
    assert 0 <= run.course.ended_ns() < 900 * S
    assert not run.pauses
