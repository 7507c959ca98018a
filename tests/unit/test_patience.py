"""Whoever waits for an answer waits by the run's clock: through a pause, and not longer than its deadline."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from isl_emu.runclock import RunClock
from isl_emu.workload.patience import PatientSocket

MS = 1_000_000


@pytest.fixture
def server():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def test_an_answer_after_a_pause_is_not_too_late(tmp_path: Path, server: socket.socket) -> None:
    clock = RunClock.create(tmp_path, 1.0)
    with PatientSocket(clock, clock.now_ns() + 1000 * MS) as asking:
        asking.connect(server.getsockname())
        answering, _ = server.accept()
        clock.stop_at_ns(clock.now_ns())
        read: list[bytes] = []
        reader = threading.Thread(target=lambda: read.append(asking.makefile("rb").readline()))
        reader.start()
        reader.join(1.5)  # the machine's, so more than the deadline is away
        assert reader.is_alive()
        clock.go_on()
        answering.sendall(b"late by the machine\n")
        reader.join(30)
        answering.close()
    assert read == [b"late by the machine\n"]


def test_nothing_by_the_deadline_is_a_time_out(tmp_path: Path, server: socket.socket) -> None:
    clock = RunClock.create(tmp_path, 1.0)
    with PatientSocket(clock, clock.now_ns() + 20 * MS) as asking:
        asking.connect(server.getsockname())
        with pytest.raises(TimeoutError):
            asking.makefile("rb").readline()
