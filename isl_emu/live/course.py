"""The course of a live run: when it pauses, goes on and ends, as its user wants it, from the start or from a terminal.

A pause stops the run's clock, and with it all that goes by it: the sky, the traffic, the time stamps. Once the clock
stands, what runs in the nodes is brought to a stand too. In exact time a pause has time itself stand, and packets on
their way with it, so nothing has to be stopped, and the run does not know that it paused. An end that comes before the
plan's is a stop of the clock for good, so nothing happens after it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from isl_emu.errors import MachineError
from isl_emu.machine.calendar import SLICE_NS
from isl_emu.machine.calendar_control import calendar_control
from isl_emu.parts.live_run import LiveRun
from isl_emu.runs.clock import RunClock, RunTimes
from isl_emu.runs.journal import PAUSES_JOURNAL, Journal
from isl_emu.runs.wishes import Wishes
from isl_emu.units import NS_PER_MS, NS_PER_S

LEAD_NS = 20 * NS_PER_MS  # of a stop that is wanted at once: nobody may have seen a later time when it is set
POLL_S = 0.05


class Freezer(Protocol):
    """What brings the programs in the nodes to a stand."""

    def freeze(self) -> None: ...

    def thaw(self) -> None: ...


class Holding(Protocol):
    """What has virtual time itself stand, where a calendar drives it."""

    def hold(self, at_ns: int) -> object:
        """Stop before an instant of the guest's monotonic clock."""

    def go_on(self) -> object:
        """Go on, or do not stop after all."""

    def wall_s(self) -> float:
        """The wall's time, which goes on."""


class Course:
    """When a live run stops; used by many threads.

    Args:
        t0_ns: instant 0 on the clock.
        duration_ns: of the plan.
        ended: is set when the run is to end.
        pauses: one line is written for each pause when it is over.
        holding: in exact time.
        ahead_ns: how far other guests of the run may be ahead.
    """

    def __init__(
        self,
        clock: RunClock,
        freezer: Freezer,
        t0_ns: int,
        duration_ns: int,
        ended: threading.Event,
        pauses: Journal,
        holding: Holding | None = None,
        ahead_ns: int = 0,
    ):
        self._clock, self._freezer, self._t0_ns, self._duration_ns = clock, freezer, t0_ns, duration_ns
        self._holding, self._ahead_ns = holding, ahead_ns
        self._ended, self._pauses = ended, pauses
        self._lock = threading.RLock()
        self._pause_ns: int | None = None  # when to stop, or where it stands
        self._end_ns: int | None = None
        self._stands_since_s: float | None = None  # by the wall
        self._all_stood_ns: int | None = None  # where all guests stood last

    def t_ns(self) -> int:
        """Where the run is; negative before it begins."""
        return self._clock.now_ns() - self._t0_ns

    @property
    def paused(self) -> bool:
        """Whether all stands still."""
        return self._stands_since_s is not None

    @property
    def frozen(self) -> bool:
        """Whether nothing can run in the nodes: where time itself stands, what needs none still can."""
        return self.paused and self._holding is None

    def pause(self, at_ns: int | None, cancelled: Callable[[], bool]) -> int | None:
        """Pause at a time, or at once, and wait until it stands: the time, or None if it was cancelled before.

        Raises:
            MachineError: it has paused already or is to pause, or the time is none of the run's still to come.
        """
        with self._lock:
            if self._pause_ns is not None:
                state = "stands" if self.paused else "is to pause"
                raise MachineError(
                    f"pause: the run {state} at {seconds(self._pause_ns)}, but it pauses once at a time; use "
                    "`isl-emu resume`"
                )
            self._pause_ns = self._stop_at(at_ns, "pause")
        return self._stand(self._pause_ns, cancelled)

    def resume(self) -> int:
        """Go on, or do not pause after all: the time.

        Raises:
            MachineError: it neither stands nor is to pause.
        """
        with self._lock:
            if self._pause_ns is None:
                raise MachineError(
                    "resume: the run does not stand, but only a pause can be ended; see `isl-emu status`"
                )
            self._go_on()
            return self.t_ns()

    def end(self, at_ns: int | None, cancelled: Callable[[], bool]) -> int | None:
        """End the run at a time, or at once, and wait until then: the time, or None if it was cancelled before.

        Raises:
            MachineError: it is to end already, or the time is none of the run's still to come.
        """
        with self._lock:
            if self._pause_ns is not None and self.paused and at_ns is not None:
                raise MachineError(
                    f"stop: the run stands at {seconds(self._pause_ns)}, but --at is a time that it must get to; use "
                    "`isl-emu resume` first, or leave out --at"
                )
            if self._end_ns is not None:
                raise MachineError(
                    f"stop: the run is to end at {seconds(self._end_ns)}, but it ends once; wait until then"
                )
            if self.paused and at_ns is None:
                self._end_ns = self.t_ns()
                self._clock.stop_at_ns(self._t0_ns + self._end_ns)
            else:
                self._end_ns = self._stop_at(at_ns, "stop")
        if not self._reaches(self._end_ns, cancelled):
            with self._lock:
                self._end_ns = None
                self._set_stop()
            return None
        self._ended.set()
        return self._end_ns

    def stand(self, verb: str, at_ns: int | None, cancelled: Callable[[], bool]) -> int | None:
        """Have all guests of a run stand at a time, or as soon as can be, until `release`: the time.

        This is no pause: nobody is told of it. Where the run pauses before, they stand there.

        Args:
            verb: what is to be done then.

        Returns:
            None if it was cancelled before.

        Raises:
            MachineError: the run does not get to that time.
        """
        assert self._holding is not None, "guests share virtual time"
        with self._lock:
            if self._pause_ns is not None and at_ns is not None:
                raise MachineError(
                    f"{verb}: the run pauses at {seconds(self._pause_ns)}, but --at is a time that it must get to; use "
                    "`isl-emu resume` first, or leave out --at"
                )
            if self.paused:
                return self._pause_ns
            stop_ns = self._soonest_ns() if at_ns is None else self._still_to_come(at_ns, verb)
            if self._pause_ns is not None:
                stop_ns = min(stop_ns, self._pause_ns)
            if stop_ns >= self._duration_ns:
                raise MachineError(
                    f"{verb}: the run is at {seconds(self.t_ns())} of {seconds(self._duration_ns)}, but its guests are "
                    f"up to {seconds(self._ahead_ns)} apart, so it is over before all of them do it; run it for longer"
                )
            self._hold(stop_ns)
        if not self._reaches(stop_ns, cancelled):
            self.release()
            return None
        self._all_stood_ns = stop_ns
        return stop_ns

    def release(self) -> None:
        """Go on after `stand`, until the next pause if there is to be one."""
        assert self._holding is not None, "guests share virtual time"
        with self._lock:
            if self._pause_ns is None:
                self._holding.go_on()
            else:
                self._hold(self._pause_ns)

    def end_here(self, *, last: bool) -> int:
        """End the run in this guest where all stand; the last of them to be told has them go on: the time."""
        assert self._holding is not None, "guests share virtual time"
        with self._lock:
            self._end_ns = self.t_ns()
            self._clock.stop_at_ns(self._t0_ns + self._end_ns)
        self._ended.set()
        if last:
            self._holding.go_on()
        return self._end_ns

    def reach(self, t_ns: int) -> None:
        """Wait until the run is at a time."""
        self._clock.sleep_until_ns(self._t0_ns + t_ns)

    def end_now(self) -> None:
        """End the run, unless it has ended."""
        if not self._ended.is_set() and self._end_ns is None:
            self.end(None, lambda: False)
        self._ended.set()

    def ended_ns(self) -> int:
        """Where the run has ended: with the plan, or before it."""
        return min(max(self.t_ns(), 0), self._duration_ns)

    def close(self) -> None:
        """The run is over: let time and the programs in the nodes go on, so that they can be ended.

        A clock that shows the end stays there.
        """
        with self._lock:
            if self._end_ns is not None and self.t_ns() < self._end_ns:
                self._end_ns = None
            self._go_on()

    def _stop_at(self, at_ns: int | None, verb: str) -> int:
        """Have the clock stop at a time, or in a moment: the time."""
        if at_ns is None and self._holding is not None and verb == "pause":
            at_ns = self._soonest_ns()
        elif at_ns is None:
            at_ns = self._soon_ns()
        else:
            self._still_to_come(at_ns, verb)
        if self._holding is not None and verb == "pause":
            self._hold(at_ns)
            return at_ns
        others = [t_ns for t_ns in (self._stopping_ns, self._end_ns) if t_ns is not None]
        if not self.frozen:
            self._clock.stop_at_ns(self._t0_ns + min([at_ns, *others]))
        return at_ns

    def _hold(self, t_ns: int) -> None:
        """Have time stand once what is due at just that time is done."""
        assert self._holding is not None, "time is virtual"
        self._holding.hold(self._t0_ns + t_ns + 1)

    def _soonest_ns(self) -> int:
        """The first time to come that no guest of the run may have passed."""
        t_ns = self.t_ns()
        return max(t_ns + (1 if t_ns == self._all_stood_ns else max(self._ahead_ns, 1)), 1)

    def _still_to_come(self, at_ns: int, verb: str) -> int:
        if at_ns >= self._duration_ns or at_ns < self._soonest_ns():
            ahead = f", and its guests are up to {seconds(self._ahead_ns)} apart" if self._ahead_ns else ""
            raise MachineError(
                f"{verb}: --at is {seconds(at_ns)}, but the run is at {seconds(self.t_ns())} of "
                f"{seconds(self._duration_ns)}{ahead}; choose a time still to come"
            )
        return at_ns

    @property
    def _stopping_ns(self) -> int | None:
        """The pause for which the clock stops."""
        return self._pause_ns if self._holding is None else None

    def _soon_ns(self) -> int:
        """A stop as soon as it can be one for everybody; not before the run has begun."""
        while True:
            at_ns = max(self.t_ns() + self._clock.own_ns(LEAD_NS), 1)
            self._clock.stop_at_ns(self._t0_ns + at_ns)
            if not self._clock.stands:
                return at_ns

    def _set_stop(self) -> None:
        """Have the clock stop at what is wanted next, if anything is; it goes on until then."""
        self._clock.go_on()
        wanted = [t_ns for t_ns in (self._stopping_ns, self._end_ns) if t_ns is not None]
        if wanted:
            self._clock.stop_at_ns(self._t0_ns + min(wanted))

    def _reaches(self, t_ns: int, cancelled: Callable[[], bool]) -> bool:
        """Wait until the run is at `t_ns`; False if cancelled before, or if the run ends."""
        while self.t_ns() < t_ns:
            if cancelled() or self._ended.is_set():
                return False
            if (left_s := self._clock.timeout_s(self._t0_ns + t_ns)) > POLL_S:
                time.sleep(POLL_S)
            elif self._holding is not None:
                self._clock.sleep_until_ns(self._t0_ns + t_ns)
            else:
                time.sleep(left_s)
        return True

    def _stand(self, t_ns: int, cancelled: Callable[[], bool]) -> int | None:
        def withdrawn() -> bool:
            return cancelled() or self._pause_ns != t_ns

        reached = self._reaches(t_ns, withdrawn)
        with self._lock:
            if self._pause_ns != t_ns:
                return None
            if not reached:
                self._go_on()
                return None
            self._stands_since_s, self._all_stood_ns = self._wall_s(), t_ns
            if self._holding is None:
                try:
                    self._freezer.freeze()
                except BaseException:
                    self._go_on()
                    raise
        return t_ns

    def _wall_s(self) -> float:
        return time.monotonic() if self._holding is None else self._holding.wall_s()

    def _go_on(self) -> None:
        if self._stands_since_s is not None:
            lasted_ns = round((self._wall_s() - self._stands_since_s) * NS_PER_S)
            self._pauses.append({"t_ns": self.t_ns(), "lasted_ns": lasted_ns})
            self._stands_since_s = None
        if self._holding is None:
            self._freezer.thaw()
        elif self._pause_ns is not None:
            self._holding.go_on()
        self._pause_ns = None
        self._set_stop()


@contextmanager
def open_course(live: LiveRun, times: RunTimes, ended: threading.Event, wishes: Wishes) -> Iterator[Course]:
    """The course of a run that is about to begin, with what is wished of it from the start.

    A wish that cannot be fulfilled, since its time has passed, is told to the user.
    """

    def wish(act: Callable[[int, Callable[[], bool]], object], at_ns: int) -> None:
        try:
            act(at_ns, ended.is_set)
        except MachineError as error:
            live.phase.steps.note(f"Warning: {error}")

    with Journal(live.folder.journal / f"{PAUSES_JOURNAL}.jsonl") as pauses:
        plan = times.t0_ns, times.duration_ns
        calendar = calendar_control()
        ahead_ns = SLICE_NS if calendar is not None and live.portion.count > 1 else 0
        course = Course(live.clock, live.net.freezer(), *plan, ended, pauses, calendar, ahead_ns)
        pause_at_ns = None if live.folder.part else wishes.pause_at_ns  # the first of several guests holds them all
        for act, at_ns in ((course.pause, pause_at_ns), (course.end, wishes.until_ns)):
            if at_ns is not None:
                threading.Thread(target=wish, args=(act, at_ns), daemon=True).start()
        try:
            yield course
        finally:
            course.close()


def seconds(t_ns: int) -> str:
    """A time as users read it."""
    return f"{t_ns / NS_PER_S:.3f} s"
