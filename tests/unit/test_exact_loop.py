"""The event loop whose waits do not count in milliseconds."""

from __future__ import annotations

import asyncio
import selectors
import time

import pytest

from isl_emu.runs import exact_loop

A_BUSY_MACHINE_NS = 500_000_000


def test_it_sleeps_as_long_as_it_is_told_and_sees_what_comes_meanwhile() -> None:
    async def main() -> tuple[int, bytes]:
        begun_ns = time.monotonic_ns()
        await asyncio.sleep(0.0123456)
        slept_ns = time.monotonic_ns() - begun_ns
        process = await asyncio.create_subprocess_exec("echo", "word", stdout=asyncio.subprocess.PIPE)
        said, _ = await asyncio.wait_for(process.communicate(), 60)
        return slept_ns, said

    slept_ns, said = exact_loop.run(main())
    assert 12_345_600 <= slept_ns < 12_345_600 + A_BUSY_MACHINE_NS
    assert said == b"word\n"


def test_its_timer_is_no_event_and_leaves_none_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float | None] = []
    before = selectors.EpollSelector.select
    monkeypatch.setattr(
        selectors.EpollSelector, "select", lambda self, timeout=None: waits.append(timeout) or before(self, timeout)
    )
    selector = exact_loop.TimerSelector()
    assert selector.select(0.0005) == [] and selector.select(0) == []
    assert waits == [None, 0]  # epoll itself was not told a time
    selector.close()


def test_tasks_that_are_left_are_ended() -> None:
    ended = []

    async def forever() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append(True)

    async def main() -> str:
        asyncio.get_running_loop().create_task(forever())
        await asyncio.sleep(0)
        return "done"

    assert exact_loop.run(main()) == "done" and ended == [True]


def test_an_error_is_raised_and_the_loop_closed() -> None:
    async def main() -> None:
        raise ValueError("so it is")

    with pytest.raises(ValueError, match="so it is"):
        exact_loop.run(main())
