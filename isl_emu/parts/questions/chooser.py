"""Who is asked next: what stations know about the satellites, put before a policy when a question is sent.

How busy satellites are, a station knows as far as it has heard. It asks those it might use for their metrics every so
often (`Polls`), over the emulated network, so the answer is late by what the path and a busy server add, and gets lost
where the path is. What it hears is old until it hears again; in between a station counts what it has sent there itself,
but knows nothing of what others send.
"""

from __future__ import annotations

import asyncio
import math
import random
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Any

from isl_emu.errors import WorkloadError
from isl_emu.parts.questions.asking import Asking
from isl_emu.parts.questions.connection import Connector, get
from isl_emu.parts.questions.exchange import RefusedError, WireBytes
from isl_emu.parts.questions.policies import Candidate, Policy, Situation
from isl_emu.parts.questions.requests import PlannedRequest
from isl_emu.parts.serving.who_serves import ServingSatellites
from isl_emu.routing.outlook import NOBODY, Outlook
from isl_emu.runs.endpoints import Endpoint
from isl_emu.units import NS_PER_S

# What llama.cpp's server, and vLLM, call requests that are worked on and that wait.
_GAUGE = re.compile(
    r"^(?:llamacpp:requests_(?P<a>processing|deferred)|vllm:num_requests_(?P<b>running|waiting))(?:\{.*\})? +(\S+)",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Heard:
    """What a station heard of a satellite's queue, and when it had asked."""

    t_asked_ns: int
    queue: float


class Queues:
    """What all stations know about the queues of satellites."""

    def __init__(self) -> None:
        self._heard: dict[tuple[str, str], Heard] = {}
        self._sent_since: Counter[tuple[str, str]] = Counter()

    def hear(self, station: str, satellite: str, heard: Heard, sent_before: int) -> None:
        """A satellite has told a station its queue.

        Args:
            sent_before: what `sent` was when the station asked.
        """
        self._heard[station, satellite] = heard
        self._sent_since[station, satellite] -= sent_before

    def send(self, station: str, satellite: str) -> None:
        """A station sends a satellite a question."""
        self._sent_since[station, satellite] += 1

    def sent(self, station: str, satellite: str) -> int:
        """How many questions have gone there since the last news."""
        return self._sent_since[station, satellite]

    def of(self, station: str, satellite: str, t_ns: int) -> tuple[float | None, int | None]:
        """The queue of a satellite as a station knows it, and how old that is; nothing if it never heard."""
        heard = self._heard.get((station, satellite))
        if heard is None:
            return None, None
        return heard.queue + self._sent_since[station, satellite], t_ns - heard.t_asked_ns


def queue_of(metrics: str) -> float | None:
    """How many requests a server works on or keeps waiting, by its metrics in Prometheus' text format."""
    values: list[float] = []
    for match in _GAUGE.finditer(metrics):
        with suppress(ValueError):
            values.append(float(match[3]))
    known = [value for value in values if math.isfinite(value)]
    return sum(known) if known else None


class Chooser:
    """Chooses the satellite for each attempt of each question.

    Args:
        outlook: what stations can reach; needed where a policy decides.
        policy: None if who is asked first is planned.
        queues: what stations have heard of the satellites' queues.
    """

    def __init__(
        self,
        asking: Asking,
        serving: ServingSatellites,
        outlook: Outlook | None = None,
        policy: Policy | None = None,
        queues: Queues | None = None,
    ):
        self._asking, self._serving, self._outlook = asking, serving, outlook
        self._policy, self._queues = policy, queues or Queues()

    def choose(self, request: PlannedRequest, t_ns: int, tried: Sequence[str | None]) -> str | None:
        """Who is asked at `t_ns` of the run; None if nobody can be.

        Args:
            tried: who was asked before, in order.
        """
        asked = tuple(name for name in tried if name is not None)
        if self._asking.pinned:
            return request.satellite
        if asked and self._asking.retry_at == "same":
            return asked[-1]
        if self._policy is None:
            # the planned one; where it does not serve or has failed any other that serves, by the request's seed
            serving = self._serving.at(t_ns).intersection(self._asking.satellites)
            if not asked and request.satellite in serving:
                return request.satellite
            others = sorted(serving.difference(asked) or serving)
            return random.Random(f"{request.seed} {len(asked)}").choice(others) if others else None
        candidates = self.candidates(request.station, t_ns)
        if not candidates:
            return None
        fresh = tuple(candidate for candidate in candidates if candidate.satellite not in asked)
        situation = Situation(t_ns, request.station, fresh or candidates, asked)
        name, known = self._policy(situation), [candidate.satellite for candidate in situation.candidates]
        if name is not None and name not in known:
            raise WorkloadError(
                f"questions.target: {self._asking.target} returned {name!r} for {request.station}, but it chooses one "
                f"of the candidates ({', '.join(known)}) or None; correct the function"
            )
        return name

    def names(self, station: str, t_ns: int) -> list[str]:
        """The satellites that a station might ask at a time of the run; before its start, those of its start."""
        return [candidate.satellite for candidate in self.candidates(station, max(t_ns, 0))]

    def candidates(self, station: str, t_ns: int) -> tuple[Candidate, ...]:
        """The satellites that serve and that the station can reach, the nearest ones, by rising delay."""
        assert self._outlook is not None
        serving = self._serving.at(t_ns)
        seen = sorted(
            (delay_ns, name, hops, None if until_ns == NOBODY else until_ns - t_ns)
            for name, delay_ns, hops, until_ns in self._outlook.seen_from(station, t_ns)
            if name in serving
        )
        nearest = seen[: self._asking.candidates]
        nearest += [entry for entry in seen[self._asking.candidates :] if entry[-1] is not None]
        return tuple(
            Candidate(name, delay_ns, hops, left_ns, *self._queues.of(station, name, t_ns))
            for delay_ns, name, hops, left_ns in nearest
        )


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
