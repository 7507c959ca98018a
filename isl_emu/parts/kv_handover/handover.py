"""Moves conversations from one satellite to another by their KV cache, and compares that with computing it anew.

Run as ``python -m isl_emu.parts.kv_handover.handover``. llama.cpp's server writes what it has computed of a
conversation to a file and reads it back (its slots' `save` and `restore`); the file goes from the source's network
namespace to the target's by HTTP. Each handover leaves one line in its journal.

A handover is one step after the other, each in a satellite's network, so whatever asks is a blocking call in a thread
that lives there; what is offered is served beside it.
"""

from __future__ import annotations

import json
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from itertools import cycle, islice
from pathlib import Path
from typing import Any, TypeVar

from aiohttp import web

from isl_emu.nodes.namespaces import enter_network
from isl_emu.parts.http_server import answering
from isl_emu.parts.kv_handover.results import JOURNAL
from isl_emu.parts.prompts import BUNDLED, read_prompts
from isl_emu.runs.clock import RunTimes, run_clock, run_parser
from isl_emu.runs.endpoints import Endpoint, read_endpoints
from isl_emu.runs.journal import Journal
from isl_emu.timebase import Clock
from isl_emu.units import NS_PER_MS

PATIENCE_S = 120.0  # for one answer of a server, in the machine's time; a broken link ends in this
READ_BYTE = 1 << 16
GO_ON_TOKENS = 8  # that the target answers, to see that both ways lead to the same
FAILURES = (OSError, HTTPException, ValueError, KeyError)

Result = TypeVar("Result")
Answer = dict[str, Any]  # of a server


@dataclass(frozen=True)
class HandoverEnd:
    """The satellite at one end of a handover.

    Args:
        folder: where its server keeps saved caches, as seen from here.
        thread: runs what it is given in the satellite's network namespace.
    """

    name: str
    endpoint: Endpoint
    folder: Path
    thread: ThreadPoolExecutor

    @classmethod
    def at(cls, name: str, endpoint: Endpoint, folder: Path) -> HandoverEnd:
        """The satellite, with a thread in its network."""
        return cls(name, endpoint, folder, ThreadPoolExecutor(1, name, enter_network, (endpoint.netns,)))

    def call(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """What a function returns that is called in the satellite's network."""
        return self.thread.submit(function, *arguments).result()

    def ask(self, path: str, body: Mapping[str, Any]) -> Answer:
        """What the satellite's own server answers to `body`."""

        def asked() -> Answer:
            connection = HTTPConnection(self.endpoint.address, self.endpoint.port, timeout=PATIENCE_S)
            try:
                connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
                response = connection.getresponse()
                answer: Answer = json.loads(response.read())
                if response.status != 200:
                    raise HTTPException(f"{path} was answered with {response.status}: {answer}")
                return answer
            finally:
                connection.close()

        return self.call(asked)

    def complete(self, tokens: list[int], count: int, reuse: bool) -> Answer:
        """The continuation of a conversation by `count` tokens; `reuse` what is in the cache, or compute it anew."""
        wish = {"prompt": tokens, "n_predict": count, "temperature": 0, "id_slot": 0, "cache_prompt": reuse}
        return self.ask("/completion", wish)


@dataclass(frozen=True)
class Due:
    """A handover of a conversation of `tokens` that is due `t_ns` after instant 0."""

    t_ns: int
    tokens: int


@dataclass(frozen=True)
class Series:
    """Handovers between two satellites, one after the other.

    Args:
        port: where the source offers its caches.
        times: of the run, on `clock`.
    """

    source: HandoverEnd
    target: HandoverEnd
    port: int
    clock: Clock
    times: RunTimes

    def run(self, series: Sequence[Due], record: Callable[[dict[str, Any]], None], stop: threading.Event) -> None:
        """Each handover when it is due; those for which the run is too short are recorded too."""
        for due in series:
            row: dict[str, Any] = {"source": self.source.name, "target": self.target.name, "t_due_ns": due.t_ns}
            row["tokens"] = due.tokens
            until_ns = min(self.times.t0_ns + due.t_ns, self.times.until_ns)
            if self.clock.wait_until_ns(until_ns, stop) or self.clock.now_ns() >= self.times.until_ns:
                record({**row, "outcome": "unfinished", "error": "the run ended first"})
                continue
            row |= {"t_ns": self._t_ns(), "computing_ns": []}
            try:
                record({**row, "outcome": "completed", **self.hand_over(due.tokens, row["computing_ns"])})
            except FAILURES as error:
                reason = str(error) or type(error).__name__
                record({**row, "outcome": "unfinished" if stop.is_set() else "failed", "error": reason})

    def hand_over(self, count: int, computing_ns: list[int]) -> dict[str, Any]:
        """Compute a conversation of `count` tokens at the source, move it, and go on at the target, both ways.

        Args:
            computing_ns: is told when each computing began and ended, also if nothing comes of it.

        Returns:
            The columns of the table `kv_handovers` that are measured.
        """
        source, target = self.source, self.target
        tokens, name = conversation(source, count), f"{source.name}-{count}.kv"
        computed = self._complete(source, tokens, 1, False, computing_ns)
        saved, save_ns = self._timed(source.ask, "/slots/0?action=save", {"filename": name})
        way = (source.endpoint.address, self.port, name, target.folder)
        received_byte, transfer_ns = self._timed(target.call, fetch, *way)
        _, restore_ns = self._timed(target.ask, "/slots/0?action=restore", {"filename": name})
        moved = self._complete(target, tokens, GO_ON_TOKENS, True, computing_ns)
        anew = self._complete(target, tokens, GO_ON_TOKENS, False, computing_ns)
        for end in (source, target):
            (end.folder / name).unlink()
        return {
            "prefill_ns": self._prompt_ns(computed),
            "kv_byte": saved["n_written"],
            "received_byte": received_byte,
            "save_ns": save_ns,
            "transfer_ns": transfer_ns,
            "restore_ns": restore_ns,
            "resume_ns": self._prompt_ns(moved),
            "cached_tokens": moved["timings"]["cache_n"],
            "reprefill_ns": self._prompt_ns(anew),
            "same_answer": moved["content"] == anew["content"],
        }

    def _t_ns(self) -> int:
        return self.clock.now_ns() - self.times.t0_ns

    def _complete(self, end: HandoverEnd, tokens: list[int], count: int, reuse: bool, told_ns: list[int]) -> Answer:
        begun_ns = self._t_ns()
        try:
            return end.complete(tokens, count, reuse)
        finally:
            told_ns += [begun_ns, self._t_ns()]

    def _timed(self, function: Callable[..., Result], *arguments: Any) -> tuple[Result, int]:
        begun_ns = self.clock.now_ns()
        result = function(*arguments)
        return result, self.clock.now_ns() - begun_ns

    def _prompt_ns(self, answer: Answer) -> int:
        """What the server says that it took for the prompt; it measures in the machine's time."""
        return self.clock.own_ns(round(answer["timings"]["prompt_ms"] * NS_PER_MS))


def conversation(satellite: HandoverEnd, count: int) -> list[int]:
    """Tokens of the shipped prompts, one after the other, as many as are wanted."""
    found = satellite.ask("/tokenize", {"content": "\n".join(read_prompts(BUNDLED))})["tokens"]
    return list(islice(cycle(found), count))


def fetch(address: str, port: int, name: str, folder: Path) -> int:
    """Fetch a file from the source into a folder, in the target's network; its size in bytes."""
    connection, size_byte = HTTPConnection(address, port, timeout=PATIENCE_S), 0
    try:
        connection.request("GET", f"/{name}")
        response = connection.getresponse()
        if response.status != 200:
            raise HTTPException(f"the cache is not to be had: {response.status} {response.reason}")
        with (folder / name).open("wb") as file:
            while data := response.read(READ_BYTE):
                size_byte += file.write(data)
        if size_byte != int(response.headers["Content-Length"]):
            raise HTTPException(f"{size_byte} bytes of the cache came, not {response.headers['Content-Length']}")
        return size_byte
    finally:
        connection.close()


@contextmanager
def offer(source: HandoverEnd, port: int) -> Iterator[None]:
    """Offer the source's caches in its network while the block lasts."""

    async def give(request: web.Request) -> web.StreamResponse:
        file = source.folder / request.match_info["name"]  # not resolved: the way there is through /proc/PID/root
        if not file.is_file():
            raise web.HTTPNotFound
        return web.FileResponse(file)

    application = web.Application()
    application.router.add_get("/{name}", give)
    listening = source.call(socket.create_server, (source.endpoint.address, port))
    with answering(application, listening):
        yield


def main() -> None:
    """Carry out one series of handovers; SIGTERM ends it early."""
    parser = run_parser("isl_emu.parts.kv_handover.handover", __doc__)
    parser.add_argument("--port", type=int, required=True, help="where the source offers its caches")
    parser.add_argument("--end", action="append", nargs=2, metavar=("NAME", "FOLDER"), required=True)
    parser.add_argument("--due", action="append", nargs=2, type=int, metavar=("NS", "TOKENS"), required=True)
    options = parser.parse_args()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    endpoints = read_endpoints(options.journal)
    source, target = (HandoverEnd.at(name, endpoints[name], Path(folder)) for name, folder in options.end)
    series = Series(source, target, options.port, run_clock(options.journal), RunTimes.of(options))
    with Journal(options.journal / f"{JOURNAL}.jsonl") as journal, offer(source, options.port):
        series.run([Due(*due) for due in options.due], journal.append, stop)


if __name__ == "__main__":
    main()
