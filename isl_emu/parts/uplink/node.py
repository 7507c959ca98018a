"""A node's part in spreading the weights: it serves what it has of the file, and fetches what it lacks.

Run as ``python -m isl_emu.parts.uplink.node`` in a station's network or in a satellite's container. Each attempt
leaves a line in the run's journal of transfers, and the whole verified file one in that of who holds it.

A satellite fetches from the stations pass by pass, from other satellites in turn, or from many at once. All of it is
HTTP with byte ranges: what has come is never asked for again, unless its digest is wrong, and a node gives away the
pieces that it has verified and no others.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from aiohttp import ClientSession, ClientTimeout, TCPConnector, web

from isl_emu.parts.uplink.attempts import AttemptLog, FetchAttempt, NotYetError, SourceRefusedError, sleep_until
from isl_emu.parts.uplink.pieces import Holding
from isl_emu.parts.uplink.plan import ATTEMPTS, HELD, VERIFIED, StationPass, TransferPlan, read_transfer_plan
from isl_emu.runs.clock import RunTimes, run_clock
from isl_emu.runs.endpoints import TRANSFER_PORT, read_endpoints
from isl_emu.runs.journal import Journal, read_journal
from isl_emu.runs.loop import run_loop
from isl_emu.timebase import Clock
from isl_emu.units import NS_PER_S

FILE_PATH = "/file"
PIECES_PATH = "/pieces"  # which pieces are here: one character each, 0 or 1
POLL_NS = NS_PER_S // 4  # between two questions whether a source has it now
RETRY_NS = NS_PER_S  # after an attempt that failed
# Read packet by packet, a megabyte costs a tenth of a second of a slow core: after a small portion more is let come.
GATHER_BYTE = 65_536
GATHER_S = 0.01
READ_BUFFER_BYTE = 1  # nothing is read ahead of what was taken
STREAMS = 2  # requests under way at one source of a swarm, so that none waits for a round trip


async def serve_file(file: Path, holding: Holding, address: str, port: int = TRANSFER_PORT) -> web.AppRunner:
    """Begin to serve; the caller cleans the runner up.

    Args:
        file: where the bytes are.
        holding: which of them the node has; looked at with each request.
    """

    async def give(request: web.Request) -> web.StreamResponse:
        try:
            wanted, size_byte = request.http_range, holding.manifest.size_byte
        except ValueError:
            raise web.HTTPRequestRangeNotSatisfiable from None
        end = size_byte if wanted.stop is None else min(wanted.stop, size_byte)
        if not holding.has(wanted.start or 0, end):
            raise web.HTTPNotFound(text="not all of these bytes are here")
        return web.FileResponse(file)

    async def tell(request: web.Request) -> web.Response:
        return web.Response(text="".join(map(str, holding.held)))

    application = web.Application()
    application.add_routes([web.get(FILE_PATH, give), web.get(PIECES_PATH, tell)])
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.0)
    await runner.setup()
    await web.TCPSite(runner, address, port).start()
    return runner


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

        async def from_peer(name: str) -> None:
            while not self.holding.complete:
                outcome = await self.log.make(name, partial(self._streams, name, picker))
                await self._pause(POLL_NS if outcome == "not_yet" else RETRY_NS)

        await asyncio.gather(*map(from_peer, sources))

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

    async def _streams(self, name: str, picker: Picker, attempt: FetchAttempt) -> None:
        async def pieces() -> None:
            """One piece after the other, until nothing is missing anywhere."""
            while not self.holding.complete:
                with picker.picked(name) as piece:
                    if piece is not None:
                        start, end = self.holding.next_byte(piece), self.holding.manifest.span(piece)[1]
                        await self._get(name, attempt, start, end)
                        continue
                await self._pause(POLL_NS)
                async with self.http.get(self.urls[name] + PIECES_PATH, raise_for_status=True) as response:
                    picker.known[name] = await response.read()
                attempt.idle(self.clock.now_ns())

        tasks = [asyncio.ensure_future(pieces()) for _ in range(STREAMS)]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


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


async def take_part(name: str, plan: TransferPlan, journal: Path, times: RunTimes) -> None:
    """Serve and fetch until the end of the run or SIGTERM.

    Args:
        journal: the folder of the run's journals.
        times: of the run, on its clock.
    """
    receiver, clock = plan.receivers.get(name), run_clock(journal)
    addresses = {node: endpoint.address for node, endpoint in read_endpoints(journal).items()}
    holding = on_disk(name, plan, journal) if receiver else Holding.everything(plan.manifest)
    runner = await serve_file(plan.file, holding, addresses[name])
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    tasks = [asyncio.ensure_future(sleep_until(clock, times.until_ns)), asyncio.ensure_future(ended.wait())]
    if receiver and not holding.complete:
        tasks.append(asyncio.ensure_future(_receive(name, plan, holding, addresses, journal, times.t0_ns)))
    await asyncio.wait(tasks[:2], return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await runner.cleanup()


def on_disk(name: str, plan: TransferPlan, journal: Path) -> Holding:
    """What a satellite has when it begins: nothing, or what it had verified before it lost its power."""
    holding = Holding.nothing(plan.manifest)
    for record in read_journal(journal / f"{VERIFIED}.jsonl").records:
        if record["satellite"] == name:
            holding.held[record["piece"]] = 1
    return holding


async def _receive(
    name: str, plan: TransferPlan, holding: Holding, addresses: Mapping[str, str], journal: Path, t0_ns: int
) -> None:
    """Fetch the whole file, and write that down."""
    clock, urls = run_clock(journal), {node: f"http://{at}:{TRANSFER_PORT}" for node, at in addresses.items()}
    receiver, connector = plan.receivers[name], TCPConnector(local_addr=(addresses[name], 0), limit=0)
    with (
        Journal(journal / f"{ATTEMPTS}.jsonl") as transfers,
        Journal(journal / f"{HELD}.jsonl") as held,
        Journal(journal / f"{VERIFIED}.jsonl") as verified,
    ):
        holding.verified = lambda piece: verified.append({"satellite": name, "piece": piece})
        log = AttemptLog(name, receiver.kind, holding, clock, t0_ns, plan.stall_ns, transfers.append)
        try:
            async with ClientSession(
                connector=connector, timeout=ClientTimeout(total=None), read_bufsize=READ_BUFFER_BYTE
            ) as http:
                await sleep_until(clock, t0_ns + plan.begin_ns)
                fetcher = Fetcher(holding, http, urls, log, clock, t0_ns)
                if receiver.kind == "uplink":
                    await fetcher.by_passes(receiver.passes)
                elif receiver.kind == "swarm":
                    await fetcher.at_once(receiver.sources, random.Random(f"{plan.seed} {name}"))
                else:
                    await fetcher.in_turn(receiver.sources)
            if holding.complete:
                held.append({"satellite": name, "t_ns": clock.now_ns() - t0_ns})
        finally:
            log.end()


def main() -> None:
    """Say that it is ready, read begin and end of the run on its clock, and take part."""
    parser = argparse.ArgumentParser(prog="isl_emu.parts.uplink.node", description=__doc__)
    parser.add_argument("--name", required=True, help="of the node")
    parser.add_argument("--journal", type=Path, required=True, help="folder of the run's journals")
    options = parser.parse_args()
    plan = read_transfer_plan(options.journal)
    print("ready", flush=True)
    if times := sys.stdin.readline().split():
        run_loop(take_part(options.name, plan, options.journal, RunTimes(*map(int, times))))


if __name__ == "__main__":
    main()
