"""The event loop of exact time, by the machine's clock: what it waits for, not how long."""

from __future__ import annotations

import asyncio
import os
import socket

from isl_emu.runs.loop import NanosecondSelector, run_loop
from isl_emu.timebase import EXACT_TIME


async def _selector_and_a_sleep() -> str:
    await asyncio.sleep(1e-9)
    return type(asyncio.get_running_loop()._selector).__name__


def test_a_timeout_ends_a_wait_with_nothing_ready():
    selector = NanosecondSelector()
    assert selector.select(1e-9) == []
    assert selector.select(0) == []  # the timer is not ready any more
    selector.close()


def test_a_file_that_is_ready_ends_a_wait_that_has_no_end():
    here, there = socket.socketpair()
    with here, there:
        selector = NanosecondSelector()
        selector.register(here, 1, "here")
        there.send(b"x")
        for timeout in (None, 3600.0):
            ((key, _),) = selector.select(timeout)
            assert key.data == "here"
        selector.close()


def test_closing_leaves_no_descriptor():
    before = os.listdir("/proc/self/fd")
    selector = NanosecondSelector()
    selector.close()
    assert os.listdir("/proc/self/fd") == before


def test_only_exact_time_has_the_exact_loop(monkeypatch):
    monkeypatch.delenv(EXACT_TIME, raising=False)
    policy = asyncio.get_event_loop_policy()
    try:
        assert run_loop(_selector_and_a_sleep()) == "EpollSelector"
        monkeypatch.setenv(EXACT_TIME, "/time")
        assert run_loop(_selector_and_a_sleep()) == "NanosecondSelector"
    finally:
        asyncio.set_event_loop_policy(policy)
