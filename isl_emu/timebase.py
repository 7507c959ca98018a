"""Time on the run grid: integer nanoseconds since the start of the run, and the clocks that follow them.

The clock of a live run, which stops and goes on for all of its processes at once, is in `runclock`.
"""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from types import FrameType
from typing import TYPE_CHECKING, Any, Protocol

from isl_emu.units import NS_PER_S

if TYPE_CHECKING:
    import numpy as np

EXACT_TIME = "ISL_EMU_CALENDAR"  # is set where a calendar drives the time: isl_emu.machine.calendar_control
LIMIT_S = 60.0  # for one call
LIMIT_LINES = 20_000_000  # for one call where no time passes meanwhile; counting makes 60 s of them


EVENT_GRAIN_S = 2e-6  # Python waits for an event in whole microseconds, rounded up; what is left is slept to the ns


@dataclass(frozen=True)
class TimeGrid:
    """The instants of a plan: `start` + k x `step_ns` for k in 0..count-1.

    The state of an instant is valid from it until the next one.

    Args:
        start: aware UTC datetime of instant 0 (whole microseconds).
        step_ns: spacing of the instants, more than 0.
        count: number of instants K, at least 1.
    """

    start: datetime
    step_ns: int
    count: int

    @classmethod
    def covering(cls, start: datetime, duration_ns: int, step_ns: int) -> TimeGrid:
        """The grid whose states cover `duration_ns` from `start`: one instant per begun step."""
        return cls(start.astimezone(timezone.utc), step_ns, max(1, -(-duration_ns // step_ns)))

    @property
    def offsets_ns(self) -> np.ndarray:
        """Instants in ns since `start`, int64, shape (K,)."""
        import numpy as np  # noqa: PLC0415  slow to import, and most processes of a run only read clocks

        return np.arange(self.count, dtype=np.int64) * self.step_ns

    @property
    def duration_ns(self) -> int:
        """The time covered by all instants' states, ns."""
        return self.count * self.step_ns

    def instant_at(self, t_ns: int) -> int:
        """The index of the instant whose state is valid at `t_ns`; clamped to the grid."""
        return min(max(t_ns // self.step_ns, 0), self.count - 1)

    def utc(self, t_ns: int) -> datetime:
        """The UTC time of `t_ns` after the start, to the microsecond."""
        return self.start + timedelta(microseconds=t_ns / 1000)


class Clock(Protocol):
    """A source of time in ns that never runs backwards, and ways to wait for it."""

    def now_ns(self) -> int: ...

    def sleep_until_ns(self, deadline_ns: int) -> None: ...

    def wait_until_ns(self, deadline_ns: int, event: threading.Event) -> bool:
        """Wait until the deadline, or until the event is set: whether it is."""

    def timeout_s(self, deadline_ns: int) -> float:
        """For how many of the machine's seconds to wait, for a descriptor say, before looking at this clock again.

        That may be before the deadline and, if the clock was stopped meanwhile, a wait of just this length ends before
        it: whoever waits looks at the clock afterwards, and waits again.
        """

    def real_s(self, duration_ns: int) -> float:
        """How many of the machine's seconds pass in `duration_ns` of this clock while it runs."""

    def own_ns(self, real_ns: int) -> int:
        """How much this clock advances in `real_ns` of the machine: for what the machine has measured."""

    def stood_ns(self) -> int:
        """For how long it has stood so far, in the machine's time; what the machine measures across that is wrong."""


class Waiting:
    """Both ways to wait, for a clock that knows its timeouts; it has never stood."""

    def stood_ns(self) -> int:
        return 0

    def sleep_until_ns(self: Clock, deadline_ns: int) -> None:
        while self.now_ns() < deadline_ns:
            _sleep(self.timeout_s(deadline_ns))

    def wait_until_ns(self: Clock, deadline_ns: int, event: threading.Event) -> bool:
        while not event.is_set() and self.now_ns() < deadline_ns:
            timeout_s = self.timeout_s(deadline_ns)
            if timeout_s > EVENT_GRAIN_S:
                event.wait(timeout_s - EVENT_GRAIN_S)
            else:
                _sleep(timeout_s)
        return event.is_set()


def _sleep(duration_s: float) -> None:
    """Python rounds up to whole nanoseconds, and what is a trace more than one would be one more: 61 ns become 62."""
    time.sleep(math.nextafter(duration_s, 0.0))


class MonotonicClock(Waiting):
    """The machine's CLOCK_MONOTONIC; shared by every process and namespace of one kernel."""

    def now_ns(self) -> int:
        return time.monotonic_ns()

    def timeout_s(self, deadline_ns: int) -> float:
        return max(0, deadline_ns - time.monotonic_ns()) / NS_PER_S

    def real_s(self, duration_ns: int) -> float:
        return duration_ns / NS_PER_S

    def own_ns(self, real_ns: int) -> int:
        return real_ns


class ManualClock:
    """A clock for tests: sleeping moves it, nothing else does unless `advance_ns` is called."""

    def __init__(self, now_ns: int = 0):
        self._now_ns = now_ns

    def now_ns(self) -> int:
        return self._now_ns

    def advance_ns(self, by_ns: int) -> None:
        self._now_ns += by_ns

    def sleep_until_ns(self, deadline_ns: int) -> None:
        self._now_ns = max(self._now_ns, deadline_ns)

    def wait_until_ns(self, deadline_ns: int, event: threading.Event) -> bool:
        if not event.is_set():
            self.sleep_until_ns(deadline_ns)
        return event.is_set()

    def stood_ns(self) -> int:
        return 0

    def timeout_s(self, deadline_ns: int) -> float:
        return max(0, deadline_ns - self._now_ns) / NS_PER_S

    def real_s(self, duration_ns: int) -> float:
        return duration_ns / NS_PER_S

    def own_ns(self, real_ns: int) -> int:
        return real_ns


class TooLongError(Exception):
    """A function has not returned in time."""


@contextmanager
def time_limit() -> Iterator[None]:
    """What takes too long in the block ends with a `TooLongError`; only a program's main thread can be limited."""
    if threading.current_thread() is not threading.main_thread():
        yield
    elif EXACT_TIME in os.environ:
        with _counted_lines():
            yield
    else:
        before = signal.signal(signal.SIGALRM, _end)
        signal.setitimer(signal.ITIMER_REAL, LIMIT_S)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)


def _end(*_: object) -> None:
    raise TooLongError


@contextmanager
def _counted_lines() -> Iterator[None]:
    """The same where a call takes no time: a limit of lines."""
    left = LIMIT_LINES

    def count(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise TooLongError
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        yield
    finally:
        sys.settrace(before)
