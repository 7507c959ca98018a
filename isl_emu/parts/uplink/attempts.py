"""Attempts to fetch a file: each one connection to a source, from its first request to whatever ends it.

An attempt that brings nothing leaves no record of its own; the next one that does counts it, and so does the end.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import ClientConnectorError, ClientError

from isl_emu.parts.uplink.pieces import DigestError, Holding
from isl_emu.timebase import Clock
from isl_emu.units import seconds_text

LOOK_S = 0.2  # between two looks at whether an attempt is to end


class NotYetError(Exception):
    """The source does not have what it is asked for."""


class StalledError(Exception):
    """Nothing came any more."""


class MovedOnError(Exception):
    """Another source takes over."""


class SourceRefusedError(Exception):
    """The source answered with an error."""


OUTCOMES: dict[type[BaseException], str] = {
    NotYetError: "not_yet",
    StalledError: "stalled",
    MovedOnError: "moved_on",
    SourceRefusedError: "refused",
    DigestError: "corrupt",
    ClientConnectorError: "unreachable",
    ClientError: "broken",
    OSError: "broken",
    asyncio.CancelledError: "unfinished",
}
"""The first that fits says what became of an attempt; one without an error is completed."""


@dataclass
class FetchAttempt:
    """A connection to a source, or several at the same time to the same one.

    Args:
        t_active_ns: when something last came.
        resumed_from_byte: how much of the file was there before.
    """

    source: str
    t_start_ns: int
    t_active_ns: int
    resumed_from_byte: int
    received_byte: int = 0
    _under_way: int = 0

    @asynccontextmanager
    async def under_way(self) -> AsyncIterator[None]:
        """Within the block, something is asked for."""
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1

    def count(self, size_byte: int, now_ns: int) -> None:
        """Something came."""
        self.received_byte += size_byte
        self.t_active_ns = now_ns

    def idle(self, now_ns: int) -> None:
        """The source answers, but has nothing that is needed; before something came, the attempt begins anew."""
        if not self._under_way:
            self.t_active_ns = now_ns
        if not self.received_byte:
            self.t_start_ns = now_ns


@dataclass
class AttemptLog:
    """Makes attempts and writes down what became of them.

    Args:
        stall_ns: how long an attempt lasts after something last came.
        write: takes the record of an attempt.
    """

    destination: str
    kind: str
    holding: Holding
    clock: Clock
    t0_ns: int
    stall_ns: int
    write: Callable[[dict[str, Any]], None]
    _vain: dict[str, list[dict[str, Any]]] = field(default_factory=dict)  # by source

    async def make(
        self,
        source: str,
        fetch: Callable[[FetchAttempt], Awaitable[None]],
        moved_on: Callable[[], bool] = lambda: False,
    ) -> str:
        """Fetch from a source until it is done, fails, stalls or has been replaced by another.

        Returns:
            The outcome; "completed" if `fetch` returned.
        """
        now_ns = self.clock.now_ns()
        attempt = FetchAttempt(source, now_ns, now_ns, self.holding.received_byte)
        outcome, reason = "completed", None
        try:
            await self._watch(asyncio.ensure_future(fetch(attempt)), attempt, moved_on)
        except tuple(OUTCOMES) as error:
            outcome = next(name for kind, name in OUTCOMES.items() if isinstance(error, kind))
            reason = str(error) or None
            if outcome == "unfinished":
                self._close(attempt, outcome, reason)
                raise
        self._close(attempt, outcome, reason)
        return outcome

    def end(self) -> None:
        """Write down what was only tried in vain; the run is over."""
        for record in [tries[-1] | {"tries": len(tries)} for tries in self._vain.values() if tries]:
            self.write(record)
        self._vain.clear()

    async def _watch(self, task: asyncio.Future[None], attempt: FetchAttempt, moved_on: Callable[[], bool]) -> None:
        """Wait for the end of a task, and end it when nothing comes any more or another source takes over."""
        try:
            while not (await asyncio.wait({task}, timeout=LOOK_S))[0]:
                if moved_on():
                    raise MovedOnError("the next pass has begun")
                if self.clock.now_ns() - attempt.t_active_ns > self.stall_ns:
                    raise StalledError(f"nothing came for {seconds_text(self.stall_ns)}")
            task.result()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _close(self, attempt: FetchAttempt, outcome: str, reason: str | None) -> None:
        vain = self._vain.setdefault(attempt.source, [])
        record = {
            "source": attempt.source,
            "destination": self.destination,
            "kind": self.kind,
            "t_start_ns": attempt.t_start_ns - self.t0_ns,
            "t_end_ns": self.clock.now_ns() - self.t0_ns,
            "resumed_from_byte": attempt.resumed_from_byte,
            "received_byte": attempt.received_byte,
            "outcome": outcome,
            "error": reason,
            "digest_ok": outcome != "corrupt" if attempt.received_byte else None,
            "tries": 1 + len(vain),
        }
        if attempt.received_byte:
            self.write(record)
            vain.clear()
        elif outcome != "not_yet":
            vain.append(record)


async def sleep_until(clock: Clock, t_ns: int) -> None:
    """Wait by a run's clock, which may be slow, or stand still."""
    while clock.now_ns() < t_ns:
        await asyncio.sleep(clock.timeout_s(t_ns))
