"""How a satellite fetches a file: from the stations pass by pass, from other satellites in turn, or from many at once.

All of it is HTTP with byte ranges: what has come is never asked for again, unless its digest is wrong.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from aiohttp import ClientSession

from isl_emu.parts.uplink.attempts import AttemptLog, FetchAttempt, NotYetError, SourceRefusedError, sleep_until
from isl_emu.parts.uplink.pieces import Holding
from isl_emu.parts.uplink.plan import StationPass
from isl_emu.parts.uplink.server import FILE_PATH, PIECES_PATH
from isl_emu.timebase import Clock
from isl_emu.units import NS_PER_S

POLL_NS = NS_PER_S // 4  # between two questions whether a source has it now
RETRY_NS = NS_PER_S  # after an attempt that failed
# Read packet by packet, a megabyte costs a tenth of a second of a slow core: after a small portion more is let come.
GATHER_BYTE = 65_536
GATHER_S = 0.01
READ_BUFFER_BYTE = 1  # nothing is read ahead of what was taken
STREAMS = 2  # requests under way at one source of a swarm, so that none waits for a round trip


@dataclass
class Fetcher:
    """Fetches what is missing of a file.

    Args:
        urls: of the sources, by name.
        log: makes the attempts.
        t0_ns: instant 0 on the clock.
    """

    holding: Holding
    http: ClientSession
    urls: Mapping[str, str]
    log: AttemptLog
    clock: Clock
    t0_ns: int

    async def by_passes(self, passes: Sequence[StationPass]) -> None:
        """Fetch from the station whose pass it is; between passes, wait. Ends with the file, or with the last pass."""

        def now() -> StationPass | None:
            """The pass of this time, else the next one."""
            return next((each for each in passes if each.end_ns > self._t_ns()), None)

        def other_than(station: str) -> bool:
            """Whether it is another station's pass now."""
            each = now()
            return each is not None and each.start_ns <= self._t_ns() and each.station != station

        while not self.holding.complete and (each := now()) is not None:
            await sleep_until(self.clock, self.t0_ns + each.start_ns)
            await self.log.make(each.station, partial(self._rest, each.station), partial(other_than, each.station))
            await self._pause(RETRY_NS)

    async def in_turn(self, sources: Sequence[str]) -> None:
        """Fetch from the first source as soon as it has all; where it fails, from the next one, round and round."""
        turn = 0
        while not self.holding.complete:
            name = sources[turn % len(sources)]
            outcome = await self.log.make(name, partial(self._rest, name))
            turn = 0 if outcome == "not_yet" else turn + 1
            await self._pause(POLL_NS if outcome == "not_yet" else RETRY_NS)

    async def at_once(self, sources: Sequence[str], choice: random.Random) -> None:
        """Fetch different pieces from all sources at the same time, the rarest ones first."""
        picker = Picker(self.holding, choice)
        await asyncio.gather(*(self._from_peer(name, picker) for name in sources))

    def _t_ns(self) -> int:
        return self.clock.now_ns() - self.t0_ns

    async def _pause(self, duration_ns: int) -> None:
        if not self.holding.complete:
            await sleep_until(self.clock, self.clock.now_ns() + duration_ns)

    async def _rest(self, name: str, attempt: FetchAttempt) -> None:
        """All that is missing, in order."""
        while not self.holding.complete:
            await self._get(name, attempt, *self.holding.gap())

    async def _get(self, name: str, attempt: FetchAttempt, start: int, end: int) -> None:
        """Bytes `start` to `end` (excluded) of the file; those that come are taken in, also if not all do."""
        headers = {"Range": f"bytes={start}-{end - 1}"}
        async with attempt.under_way(), self.http.get(self.urls[name] + FILE_PATH, headers=headers) as response:
            if response.status == 404:
                raise NotYetError
            if response.status != 206:
                raise SourceRefusedError(f"HTTP status {response.status}: {response.reason}")
            async for data in response.content.iter_any():
                attempt.count(len(data), self.clock.now_ns())
                self.holding.take(start, data)
                start += len(data)
                if len(data) < GATHER_BYTE:
                    await asyncio.sleep(GATHER_S)

    async def _from_peer(self, name: str, picker: Picker) -> None:
        while not self.holding.complete:
            outcome = await self.log.make(name, partial(self._streams, name, picker))
            await self._pause(POLL_NS if outcome == "not_yet" else RETRY_NS)

    async def _streams(self, name: str, picker: Picker, attempt: FetchAttempt) -> None:
        tasks = [asyncio.ensure_future(self._pieces(name, attempt, picker)) for _ in range(STREAMS)]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _pieces(self, name: str, attempt: FetchAttempt, picker: Picker) -> None:
        """One piece after the other, until nothing is missing anywhere."""
        while not self.holding.complete:
            with picker.picked(name) as piece:
                if piece is not None:
                    await self._get(name, attempt, self.holding.next_byte(piece), self.holding.manifest.span(piece)[1])
                    continue
            await self._ask_pieces(name, attempt, picker)

    async def _ask_pieces(self, name: str, attempt: FetchAttempt, picker: Picker) -> None:
        """Ask what the source has, after a while."""
        await self._pause(POLL_NS)
        async with self.http.get(self.urls[name] + PIECES_PATH, raise_for_status=True) as response:
            picker.known[name] = await response.read()
        attempt.idle(self.clock.now_ns())


@dataclass
class Picker:
    """Which piece to ask a source for: one that is missing, that nobody is asked for, and that the fewest have.

    Args:
        choice: decides between equally rare ones, so that not all satellites fetch the same.
        known: which pieces each source has, "0" or "1" each.
    """

    holding: Holding
    choice: random.Random
    known: dict[str, bytes] = field(default_factory=dict)
    _asked: set[int] = field(default_factory=set)

    @contextmanager
    def picked(self, name: str) -> Iterator[int | None]:
        """A piece to fetch from a source within the block; None if it has none that is needed."""
        free = [piece for piece in self.holding.missing() if piece not in self._asked]
        wanted = [piece for piece in free if _has(self.known.get(name, b""), piece)]
        have = Counter(piece for pieces in self.known.values() for piece in wanted if _has(pieces, piece))
        rarest = min((have[piece] for piece in wanted), default=0)
        piece = self.choice.choice([piece for piece in wanted if have[piece] == rarest]) if wanted else None
        picked = set() if piece is None else {piece}
        self._asked |= picked
        try:
            yield piece
        finally:
            self._asked -= picked


def _has(pieces: bytes, piece: int) -> bool:
    return pieces[piece : piece + 1] == b"1"
