"""Whole runs take turns on the machine's CPUs when several pytests are at work at once, as under scripts/test."""

from __future__ import annotations

import fcntl
import functools
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

import pytest

# Names a folder with a file for each run that may be live at once: a lane, locked while it is used.
LANES = "ISL_EMU_TEST_LANES"
LOOK_S = 0.1


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """A test that makes whole runs holds a lane from before its fixtures until after them; one marked `alone`, all.

    A worker for other tests takes a lane before its first and keeps it.
    """
    folder = os.environ.get(LANES)
    if folder is None:
        return (yield)
    if item.get_closest_marker("emulation") is None:
        if "PYTEST_XDIST_WORKER" in os.environ:
            _lane_for_good(Path(folder))
        return (yield)
    with _all_lanes(Path(folder)) if item.get_closest_marker("alone") else _one_lane(Path(folder)):
        return (yield)


@functools.cache
def _lane_for_good(folder: Path) -> ExitStack:
    """Held until the process ends."""
    held = ExitStack()
    held.enter_context(_one_lane(folder))
    return held


@contextmanager
def _one_lane(folder: Path) -> Iterator[None]:
    with ExitStack() as stack:
        lanes = [stack.enter_context(path.open()) for path in sorted(folder.iterdir())]
        while not any(_is_locked_now(lane) for lane in lanes):
            time.sleep(LOOK_S)
        yield


def _is_locked_now(lane: IO[str]) -> bool:
    try:
        fcntl.flock(lane, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@contextmanager
def _all_lanes(folder: Path) -> Iterator[None]:
    with ExitStack() as stack:
        for path in sorted(folder.iterdir()):  # in the same order everywhere, so that no two wait for each other
            fcntl.flock(stack.enter_context(path.open()), fcntl.LOCK_EX)
        yield
