"""An event loop whose timers end at their nanosecond where time is exact: asyncio's own waits whole milliseconds."""

from __future__ import annotations

import asyncio
import ctypes
import os
import selectors
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

from isl_emu.timebase import EXACT_TIME
from isl_emu.units import NS_PER_S

Result = TypeVar("Result")

_LIBC = ctypes.CDLL(None, use_errno=True)


class _Timer(ctypes.Structure):
    """struct itimerspec, once, after some time (timerfd_settime(2))."""

    _fields_ = [(name, ctypes.c_long) for name in ("interval_s", "interval_ns", "after_s", "after_ns")]


class NanosecondSelector(selectors.EpollSelector):
    """epoll with a timer of its own for what ends a wait: epoll_wait(2) takes milliseconds."""

    def __init__(self) -> None:
        super().__init__()
        self._timer = _LIBC.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._timer < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._epoll: Any = self._selector  # type: ignore[attr-defined]
        self._epoll.register(self._timer, selectors.EVENT_READ)
        self._is_set = False

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait until a file is ready or the timeout is over; the timer itself is none of the files."""
        if timeout is not None and timeout <= 0:
            return super().select(timeout)
        if timeout is not None or self._is_set:  # one that has rung, or is to ring, ends any wait until it is set anew
            after_ns = 0 if timeout is None else max(round(timeout * NS_PER_S), 1)  # 0: never
            setting = _Timer(0, 0, *divmod(after_ns, NS_PER_S))
            if _LIBC.timerfd_settime(self._timer, 0, ctypes.byref(setting), None):
                raise OSError(ctypes.get_errno(), "timerfd_settime")
        self._is_set = timeout is not None
        return super().select(None)

    def close(self) -> None:
        """Close the timer with the rest."""
        super().close()
        os.close(self._timer)


def run_loop(main: Coroutine[Any, Any, Result]) -> Result:
    """As asyncio.run, with exact timers where time is exact."""
    if EXACT_TIME in os.environ:
        asyncio.set_event_loop_policy(_ExactPolicy())
    return asyncio.run(main)


class _ExactPolicy(asyncio.DefaultEventLoopPolicy):
    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.SelectorEventLoop(NanosecondSelector())
