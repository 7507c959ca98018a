"""Stations ask satellites for their queues, over the emulated network; see `queues`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Any

from isl_emu.parts.questions.chooser import Chooser, Heard, Queues, queue_of
from isl_emu.parts.questions.connection import Connector, get
from isl_emu.parts.questions.exchange import RefusedError
from isl_emu.parts.questions.tcp_bytes import WireBytes
from isl_emu.runs.endpoints import Endpoint
from isl_emu.units import NS_PER_S

PATH = "/metrics"
PATIENCE_NS = 5 * NS_PER_S  # with an answer: a busy server gives it between two batches of its work


@dataclass
class Metrics:
    """A server's metrics that come in."""

    until_ns: int
    text: bytes = b""
    wire: WireBytes = WireBytes()

    def connected(self) -> None:
        """Nothing depends on it."""

    def take(self, part: bytes, now_ns: int) -> bool:
        """All of them are wanted."""
        self.text += part
        return False

    def patient_until_ns(self) -> int:
        """A fixed time."""
        return self.until_ns

    def counted(self, wire: WireBytes) -> None:
        """Keep it for the record."""
        self.wire = wire


@dataclass
class Polls:
    """Asks satellites for their queues again and again.

    Args:
        chooser: knows the satellites that a station might use.
        write: takes the record of each poll.
    """

    connector: Connector
    endpoints: Mapping[str, Endpoint]
    queues: Queues
    chooser: Chooser
    write: Callable[[dict[str, Any]], None]
    t0_ns: int
    interval_ns: int
    _open: set[tuple[str, str]] = field(default_factory=set)

    async def run(self, station: str) -> None:
        """Poll from one station until it is cancelled; a satellite is asked anew once it has answered or timed out."""
        clock, polls = self.connector.clock, list[asyncio.Task[None]]()
        t_ns = clock.now_ns()
        try:
            while True:
                for satellite in self.chooser.names(station, clock.now_ns() - self.t0_ns):
                    if (station, satellite) not in self._open:
                        self._open.add((station, satellite))
                        polls.append(asyncio.create_task(self._poll(station, satellite)))
                polls = [poll for poll in polls if not poll.done()]
                t_ns = max(t_ns + self.interval_ns, clock.now_ns())
                await self.connector.sleep_until(t_ns)
        finally:
            for poll in polls:
                poll.cancel()

    async def _poll(self, station: str, satellite: str) -> None:
        """Ask once, and write down what came of it."""
        source, target = self.endpoints[station], self.endpoints[satellite]
        send_ns, sent_before = self.connector.clock.now_ns(), self.queues.sent(station, satellite)
        metrics, queue = Metrics(send_ns + PATIENCE_NS), None
        try:
            await self.connector.ask(source, target, get(PATH, target), metrics)
            queue = queue_of(metrics.text.decode(errors="replace"))
        except (OSError, HTTPException, RefusedError):
            pass  # it heard nothing, which is in the record
        finally:
            self._open.discard((station, satellite))
        rtt_ns = self.connector.clock.now_ns() - send_ns
        if queue is not None:
            self.queues.hear(station, satellite, Heard(send_ns - self.t0_ns, queue), sent_before)
        self.write(
            {
                "station": station,
                "satellite": satellite,
                "t_send_ns": send_ns - self.t0_ns,
                "rtt_ns": None if queue is None else rtt_ns,
                "queue": queue,
                "sent_byte": metrics.wire.sent,
                "received_byte": metrics.wire.received,
            }
        )
