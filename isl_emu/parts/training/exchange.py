"""One rank's rounds of a collective over its lines to other ranks: bytes out and bytes in at the same time."""

from __future__ import annotations

import select
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from isl_emu.parts.training.collectives import Round
from isl_emu.timebase import Clock

READ_BYTE = 1 << 18


class Stalled(Exception):
    """Nothing moved for too long, or a line broke."""


@dataclass
class _Flow:
    """A message on one line: what is left of it."""

    line: socket.socket
    rest: memoryview
    receives: bool = False


class Lines:
    """The lines of one rank, those it sends on and those it receives on, by the rank at the other end.

    Args:
        timeout_ns: for how long nothing may move on any of them, by the clock.
    """

    def __init__(
        self, out: Mapping[int, socket.socket], into: Mapping[int, socket.socket], clock: Clock, timeout_ns: int
    ):
        self._out, self._in = dict(out), dict(into)
        self._clock, self._timeout_ns = clock, timeout_ns
        self._scratch: dict[int, np.ndarray] = {}  # by source; kept, since touching new memory is slow
        self.sent_byte = self.received_byte = 0
        for line in (*self._out.values(), *self._in.values()):
            line.setblocking(False)

    def shut_down(self) -> None:
        """End both directions of all lines: whoever waits in `carry_out`, in another thread, is woken."""
        for line in (*self._out.values(), *self._in.values()):
            with suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close all lines: who waits at another end notices."""
        for line in (*self._out.values(), *self._in.values()):
            line.close()

    def carry_out(self, rounds: Sequence[Round], vector: np.ndarray) -> None:
        """Take part in a collective; afterwards the vector holds its result.

        Raises:
            Stalled: nothing moved for too long, or a line broke.
        """
        for round_ in rounds:
            flows = [_Flow(self._out[each.to], _bytes_of(vector[each.part])) for each in round_.sendings]
            summands: list[tuple[slice, np.ndarray]] = []  # each with the part of the vector to which it is added
            for receiving in round_.receivings:
                into = vector[receiving.part]
                if receiving.adds:
                    # Room for what comes from a rank and is to be added to `target`
                    if len(self._scratch.get(receiving.source, ())) < len(into):
                        self._scratch[receiving.source] = np.empty_like(into)
                    into = self._scratch[receiving.source][: len(into)]
                    summands.append((receiving.part, into))
                flows.append(_Flow(self._in[receiving.source], _bytes_of(into), receives=True))
            self._move([flow for flow in flows if len(flow.rest)])
            for part, summand in summands:
                vector[part] += summand

    def _move(self, flows: list[_Flow]) -> None:
        """Send and receive until nothing is left; a line carries one flow of a round each way."""
        deadline_ns = self._clock.now_ns() + self._timeout_ns
        while flows:
            try:
                moved = sum(self._advance(flow) for flow in flows)
            except OSError as error:
                raise Stalled(f"a line broke ({error.strerror or error})") from error
            flows = [flow for flow in flows if len(flow.rest)]
            if moved:
                deadline_ns = self._clock.now_ns() + self._timeout_ns
            elif flows:
                self._await(flows, deadline_ns)

    def _advance(self, flow: _Flow) -> int:
        """Move what can be moved at once; how many bytes."""
        try:
            if not flow.receives:
                count = flow.line.send(flow.rest)
                self.sent_byte += count
            else:
                count = flow.line.recv_into(flow.rest[:READ_BYTE])
                self.received_byte += count
                if not count:
                    raise Stalled("a line was closed at its other end")
        except BlockingIOError:
            return 0
        flow.rest = flow.rest[count:]
        return count

    def _await(self, flows: Sequence[_Flow], deadline_ns: int) -> None:
        poll = select.poll()
        for flow in flows:
            poll.register(flow.line, select.POLLIN if flow.receives else select.POLLOUT)
        while not poll.poll(1000 * self._clock.timeout_s(deadline_ns)):
            if self._clock.now_ns() >= deadline_ns:
                raise Stalled("nothing moved any more")


def _bytes_of(array: np.ndarray) -> memoryview:
    """An array's memory; an empty one's is empty."""
    return array.data.cast("B") if len(array) else memoryview(b"")
