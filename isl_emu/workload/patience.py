"""A TCP socket whose patience is counted by a run's clock: while that stands, nobody gives up on an answer."""

from __future__ import annotations

import select
import socket
from typing import Any

from isl_emu.timebase import Clock


class PatientSocket(socket.socket):
    """A TCP socket that reads until `deadline_ns` of a clock, which may be put off at any time.

    Connecting and sending have a time-out of the machine's time instead: both are the kernel's, which no pause stops.
    """

    def __init__(self, clock: Clock, deadline_ns: int):
        super().__init__(socket.AF_INET, socket.SOCK_STREAM)
        self.clock, self.deadline_ns = clock, deadline_ns
        self.settimeout(clock.real_s(max(deadline_ns - clock.now_ns(), 1)))

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        """As a socket's, once there is something to read.

        Raises:
            TimeoutError: there is nothing at the deadline.
        """
        self._await_readable()
        return super().recv_into(*args, **kwargs)

    def _await_readable(self) -> None:
        waiting = select.poll()
        waiting.register(self, select.POLLIN)
        while not waiting.poll(1000 * self.clock.timeout_s(self.deadline_ns)):
            if self.clock.now_ns() >= self.deadline_ns:
                raise TimeoutError("timed out")
