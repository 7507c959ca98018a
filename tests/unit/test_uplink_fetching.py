"""Nodes that really send a file to each other over HTTP, on this machine's loopback."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack, suppress

import pytest
from aiohttp import ClientSession, ClientTimeout, TCPConnector

from isl_emu.parts.uplink import node as transfer_node
from isl_emu.parts.uplink.attempts import AttemptLog
from isl_emu.parts.uplink.node import READ_BUFFER_BYTE, Fetcher, serve_file
from isl_emu.parts.uplink.pieces import Holding, describe
from isl_emu.parts.uplink.plan import StationPass
from isl_emu.timebase import MonotonicClock
from isl_emu.units import NS_PER_S

SIZE_BYTE, PIECE_BYTE = 1_000_000, 65_536
PATIENCE_S = 60  # only for telling a hang from a slow machine
STALL_NS = NS_PER_S // 2  # of the machine's time: only a stall of this length is mistaken for a silent source
ALWAYS_NS = 3600 * NS_PER_S


class World:
    """Nodes on the loopback; what they give away may be false."""

    def __init__(self, folder):
        self.file = folder / "weights"
        self.file.write_bytes(random.Random(1).randbytes(SIZE_BYTE))
        self.manifest = describe(self.file, PIECE_BYTE)
        self.clock = MonotonicClock()
        self.t0_ns = self.clock.now_ns()
        self.urls = {}
        self.rows = []
        self._undo = AsyncExitStack()
        self._folder = folder

    async def __aenter__(self):
        return self

    async def __aexit__(self, *error):
        await self._undo.aclose()

    async def holder(self, name, file=None):
        """A node that has the file, or something in its place."""
        await self._serve(name, file or self.file, Holding.everything(self.manifest))

    async def receiver(self, name, kind="ring"):
        """A node that has nothing yet, and serves what it gets."""
        holding = Holding.nothing(self.manifest)
        await self._serve(name, self.file, holding)
        http = ClientSession(
            connector=TCPConnector(limit=0), timeout=ClientTimeout(total=None), read_bufsize=READ_BUFFER_BYTE
        )
        http = await self._undo.enter_async_context(http)
        log = AttemptLog(name, kind, holding, self.clock, self.t0_ns, STALL_NS, self.rows.append)
        return Fetcher(holding, http, self.urls, log, self.clock, self.t0_ns)

    def false_copy(self, piece):
        """A file that is wrong in one byte of a piece."""
        data = bytearray(self.file.read_bytes())
        data[piece * PIECE_BYTE + 7] ^= 1
        path = self._folder / "false"
        path.write_bytes(data)
        return path

    async def _serve(self, name, file, holding):
        runner = await serve_file(file, holding, "127.0.0.1", 0)
        self._undo.push_async_callback(runner.cleanup)
        host, port = runner.addresses[0]
        self.urls[name] = f"http://{host}:{port}"

    async def silent(self, name, sent_byte):
        """A source that sends some bytes of what it is asked for, and then nothing more for ever."""

        async def answer(reader, writer):
            request = await reader.readuntil(b"\r\n\r\n")
            start, end = map(int, request.split(b"bytes=")[1].split(b"\r\n")[0].split(b"-"))
            head = f"HTTP/1.1 206 Partial Content\r\nContent-Length: {end - start + 1}\r\n\r\n"
            writer.write(head.encode() + self.file.read_bytes()[start : start + sent_byte])
            with suppress(ConnectionError):
                await reader.read()
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        self._undo.push_async_callback(server.wait_closed)
        self._undo.callback(server.close)
        self.urls[name] = "http://{}:{}".format(*server.sockets[0].getsockname())


@pytest.fixture(autouse=True)
def _soon(monkeypatch):
    """Nobody waits long between two attempts."""
    monkeypatch.setattr(transfer_node, "RETRY_NS", NS_PER_S // 10)
    monkeypatch.setattr(transfer_node, "POLL_NS", NS_PER_S // 20)


def play(story, folder):
    """Run a story about a world of nodes; it must come to its end."""

    async def told():
        async with World(folder) as world:
            return await asyncio.wait_for(story(world), PATIENCE_S)

    return asyncio.run(told())


def test_the_file_comes_once_from_a_source_that_has_it(tmp_path):
    async def story(world):
        await world.holder("a")
        fetcher = await world.receiver("b")
        await fetcher.in_turn(["a"])
        assert fetcher.holding.complete
        return world.rows

    (row,) = play(story, tmp_path)
    assert (row["source"], row["destination"], row["kind"]) == ("a", "b", "ring")
    assert (row["received_byte"], row["resumed_from_byte"], row["outcome"]) == (SIZE_BYTE, 0, "completed")
    assert (row["digest_ok"], row["tries"], row["error"]) == (True, 1, None)
    assert 0 <= row["t_start_ns"] < row["t_end_ns"]


def test_a_chain_passes_it_on_only_when_it_is_whole(tmp_path):
    async def story(world):
        late = await world.receiver("c")
        early = await world.receiver("b")
        waiting = asyncio.ensure_future(late.in_turn(["b", "a"]))
        await asyncio.sleep(0.1)
        assert late.holding.received_byte == 0
        await world.holder("a")
        await early.in_turn(["a"])
        await waiting
        return world.rows

    first, second = play(story, tmp_path)
    assert (first["source"], first["destination"]) == ("a", "b")
    assert (second["source"], second["destination"], second["received_byte"]) == ("b", "c", SIZE_BYTE)
    assert second["t_start_ns"] >= first["t_start_ns"]


def test_what_came_before_a_stall_is_not_sent_again(tmp_path):
    sent_byte = 3 * PIECE_BYTE + 1000

    async def story(world):
        await world.silent("a", sent_byte)
        await world.holder("b")
        fetcher = await world.receiver("c")
        await fetcher.in_turn(["a", "b"])
        return world.rows

    stalled, completed = play(story, tmp_path)
    assert (stalled["outcome"], stalled["received_byte"]) == ("stalled", sent_byte)
    assert "nothing came for 0.5 s" in stalled["error"]
    assert (completed["outcome"], completed["resumed_from_byte"]) == ("completed", sent_byte)
    assert completed["received_byte"] == SIZE_BYTE - sent_byte


def test_a_false_piece_is_refused_and_fetched_again_from_another(tmp_path):
    async def story(world):
        await world.holder("false", world.false_copy(piece=5))
        await world.holder("true")
        fetcher = await world.receiver("c")
        await fetcher.in_turn(["false", "true"])
        return world.rows

    corrupt, completed = play(story, tmp_path)
    assert (corrupt["outcome"], corrupt["digest_ok"]) == ("corrupt", False)
    assert "piece 5 has another SHA-256" in corrupt["error"]
    assert (completed["resumed_from_byte"], completed["digest_ok"]) == (5 * PIECE_BYTE, True)


def test_tries_in_vain_are_counted_not_listed(tmp_path):
    async def story(world):
        world.urls["nobody"] = "http://127.0.0.1:1"
        await world.holder("a")
        fetcher = await world.receiver("b")
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(fetcher.in_turn(["nobody"]), 0.5)
        fetcher.log.end()
        return world.rows

    (row,) = play(story, tmp_path)
    assert (row["source"], row["outcome"], row["received_byte"]) == ("nobody", "unreachable", 0)
    assert row["tries"] > 1
    assert row["digest_ok"] is None


def test_a_swarm_shares_pieces_and_none_comes_twice(tmp_path):
    async def story(world):
        await world.holder("a")
        swarm = [await world.receiver(name, "swarm") for name in "bcd"]
        sources = {"b": ["a", "c"], "c": ["b", "d"], "d": ["c"]}
        await asyncio.gather(
            *(fetcher.at_once(sources[fetcher.log.destination], random.Random(1)) for fetcher in swarm)
        )
        return world.rows

    rows = play(story, tmp_path)
    for name in "bcd":
        assert sum(row["received_byte"] for row in rows if row["destination"] == name) == SIZE_BYTE
    assert {row["outcome"] for row in rows} == {"completed"}
    assert {(row["source"], row["destination"]) for row in rows} >= {("a", "b"), ("b", "c"), ("c", "d")}


def test_a_swarm_survives_a_false_and_a_silent_source(tmp_path):
    async def story(world):
        await world.holder("false", world.false_copy(piece=3))
        await world.holder("true")
        world.urls["nobody"] = "http://127.0.0.1:1"
        fetcher = await world.receiver("b", "swarm")
        await fetcher.at_once(["false", "true", "nobody"], random.Random(1))
        return fetcher.holding, world.rows

    holding, rows = play(story, tmp_path)
    assert holding.complete
    received_byte = sum(row["received_byte"] for row in rows)
    assert SIZE_BYTE <= received_byte <= SIZE_BYTE + 4 * PIECE_BYTE


def test_pass_by_pass_from_one_station_to_the_next(tmp_path):
    sent_byte = 2 * PIECE_BYTE + 5

    async def story(world):
        await world.silent("east", sent_byte)
        await world.holder("west")
        fetcher = await world.receiver("s", "uplink")
        switch_ns = world.clock.now_ns() - world.t0_ns + STALL_NS // 4
        await fetcher.by_passes([StationPass("east", 0, switch_ns), StationPass("west", switch_ns, ALWAYS_NS)])
        return world.rows

    east, west = play(story, tmp_path)
    assert (east["outcome"], east["received_byte"]) == ("moved_on", sent_byte)
    assert (west["outcome"], west["resumed_from_byte"]) == ("completed", sent_byte)


def test_after_the_last_pass_nothing_is_tried(tmp_path):
    async def story(world):
        await world.holder("a")
        fetcher = await world.receiver("s", "uplink")
        await fetcher.by_passes([StationPass("a", -2, -1)])
        return world.rows

    assert play(story, tmp_path) == []


def test_the_server_gives_only_what_is_verified(tmp_path):
    async def story(world):
        fetcher = await world.receiver("b")
        fetcher.holding.take(0, world.file.read_bytes()[: PIECE_BYTE + 10])
        url, answers = world.urls["b"], []
        for asked in ("0-65535", "0-65536", "65536-65545", "100-50", "-5"):
            async with fetcher.http.get(f"{url}/file", headers={"Range": f"bytes={asked}"}) as response:
                answers.append((response.status, len(await response.read()) if response.status == 206 else None))
        async with fetcher.http.get(f"{url}/pieces") as response:
            answers.append(await response.text())
        async with fetcher.http.get(f"{url}/file") as response:
            answers.append(response.status)
        return answers

    whole, beyond, unverified, backwards, last, pieces, everything = play(story, tmp_path)
    assert whole == (206, PIECE_BYTE)
    assert [status for status, _ in (beyond, unverified, backwards, last)] == [404, 404, 416, 404]
    assert pieces == "1" + "0" * 15
    assert everything == 404
