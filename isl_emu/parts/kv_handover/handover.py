"""Moves conversations from one satellite to another by their KV cache, and compares that with computing it anew.

Run as ``python -m isl_emu.parts.kv_handover.handover``. llama.cpp's server writes what it has computed of a
conversation to a file and reads it back (its slots' `save` and `restore`); the file goes from the source's network
namespace to the target's by HTTP, from Python's own file server. Each handover leaves one line in kv_handovers.jsonl.
"""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from http.client import HTTPConnection, HTTPException
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from isl_emu.nodes.namespaces import enter_network
from isl_emu.parts.prompts import BUNDLED, read_prompts
from isl_emu.runs.clock import run_clock
from isl_emu.runs.endpoints import Endpoint, read_endpoints
from isl_emu.runs.journal import Journal
from isl_emu.runs.times import run_parser
from isl_emu.timebase import Clock
from isl_emu.units import NS_PER_MS

PATIENCE_S = 120.0  # for one answer of a server, in the machine's time; a broken link ends in this
READ_BYTE = 1 << 16
GO_ON_TOKENS = 8  # that the target answers, to see that both ways lead to the same
FAILURES = (OSError, HTTPException, ValueError, KeyError)


@dataclass
class Satellite:
    """One end of a handover.

    Args:
        folder: where its server keeps saved caches, as seen from here.
        thread: runs what it is given in the satellite's network namespace.
    """

    name: str
    endpoint: Endpoint
    folder: Path
    thread: ThreadPoolExecutor

    @classmethod
    def at(cls, name: str, endpoint: Endpoint, folder: Path) -> Satellite:
        """The satellite, with a thread in its network."""
        return cls(name, endpoint, folder, ThreadPoolExecutor(1, name, enter_network, (endpoint.netns,)))

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What a function returns that is called in the satellite's network."""
        return self.thread.submit(function, *arguments).result()

    def ask(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """What the satellite's own server answers to `body`."""
        return self.call(_ask, self.endpoint, path, body)

    def complete(self, tokens: list[int], count: int, reuse: bool) -> dict[str, Any]:
        """The continuation of a conversation by `count` tokens; `reuse` what is in the cache, or compute it anew."""
        wish = {"prompt": tokens, "n_predict": count, "temperature": 0, "id_slot": 0, "cache_prompt": reuse}
        return self.ask("/completion", wish)


def hand_over(source: Satellite, target: Satellite, port: int, count: int, clock: Clock) -> dict[str, Any]:
    """Compute a conversation of `count` tokens at the source, move it, and go on at the target, both ways.

    Returns:
        The columns of the table `kv_handovers` that are measured.
    """
    tokens, name = conversation(source, count), f"{source.name}-{count}.kv"
    computed = source.complete(tokens, 1, reuse=False)
    saved, save_ns = _timed(clock, source.ask, "/slots/0?action=save", {"filename": name})
    (received_byte, transfer_ns) = _timed(clock, target.call, fetch, source.endpoint.address, port, name, target.folder)
    _, restore_ns = _timed(clock, target.ask, "/slots/0?action=restore", {"filename": name})
    moved, resume_ns = _timed(clock, target.complete, tokens, GO_ON_TOKENS, True)
    anew = target.complete(tokens, GO_ON_TOKENS, reuse=False)
    for satellite in (source, target):
        (satellite.folder / name).unlink()
    return {
        "tokens": count,
        "prefill_ns": _prompt_ns(computed, clock),
        "kv_byte": saved["n_written"],
        "received_byte": received_byte,
        "save_ns": save_ns,
        "transfer_ns": transfer_ns,
        "restore_ns": restore_ns,
        "resume_ns": _prompt_ns(moved, clock),
        "cached_tokens": moved["timings"]["cache_n"],
        "reprefill_ns": _prompt_ns(anew, clock),
        "same_answer": moved["content"] == anew["content"],
    }


def conversation(satellite: Satellite, count: int) -> list[int]:
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


class FileServer(ThreadingHTTPServer):
    """Offers a folder; made in a thread of the source's network, where its socket then stays."""

    daemon_threads = True


class _Files(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Silent."""


def offer(source: Satellite, port: int) -> FileServer:
    """Offer the source's caches in its network from now on."""
    handler = partial(_Files, directory=str(source.folder))
    server = source.call(FileServer, (source.endpoint.address, port), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def run(
    source: Satellite,
    target: Satellite,
    port: int,
    due: list[tuple[int, int]],
    clock: Clock,
    t0_ns: int,
    until_ns: int,
    record: Callable[[dict[str, Any]], None],
    stop: threading.Event,
) -> None:
    """Each handover when it is due, and one after the other; those for which the run is too short are recorded too.

    Args:
        due: time on the clock and number of tokens of each.
    """
    for due_ns, count in due:
        row = {"source": source.name, "target": target.name, "t_due_ns": due_ns - t0_ns, "tokens": count}
        if clock.wait_until_ns(min(due_ns, until_ns), stop) or clock.now_ns() >= until_ns:
            record({**row, "outcome": "unfinished", "error": "the run ended first"})
            continue
        row["t_ns"] = clock.now_ns() - t0_ns
        try:
            record({**row, "outcome": "completed", **hand_over(source, target, port, count, clock)})
        except FAILURES as error:
            reason = str(error) or type(error).__name__
            record({**row, "outcome": "unfinished" if stop.is_set() else "failed", "error": reason})


def main() -> None:
    """Carry out one series of handovers; SIGTERM ends it early."""
    parser = run_parser("isl_emu.parts.kv_handover.handover", __doc__)
    parser.add_argument("--port", type=int, required=True, help="where the source offers its caches")
    parser.add_argument("--end", action="append", nargs=2, metavar=("NAME", "FOLDER"), required=True)
    parser.add_argument("--due", action="append", nargs=2, type=int, metavar=("NS", "TOKENS"), required=True)
    options = parser.parse_args()
    stop, clock = threading.Event(), run_clock(options.journal)
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    endpoints = read_endpoints(options.journal)
    source, target = (Satellite.at(name, endpoints[name], Path(folder)) for name, folder in options.end)
    due = [(options.t0_ns + at_ns, count) for at_ns, count in options.due]
    with Journal(options.journal / "kv_handovers.jsonl") as journal:
        server = offer(source, options.port)
        run(source, target, options.port, due, clock, options.t0_ns, options.until_ns, journal.append, stop)
        server.shutdown()


def _ask(endpoint: Endpoint, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
    connection = HTTPConnection(endpoint.address, endpoint.port, timeout=PATIENCE_S)
    try:
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        answer = json.loads(response.read())
        if response.status != 200:
            raise HTTPException(f"{path} was answered with {response.status}: {answer}")
        return answer
    finally:
        connection.close()


def _timed(clock: Clock, function: Callable[..., Any], *arguments: Any) -> tuple[Any, int]:
    begun_ns = clock.now_ns()
    result = function(*arguments)
    return result, clock.now_ns() - begun_ns


def _prompt_ns(answer: Mapping[str, Any], clock: Clock) -> int:
    """What the server says that it took for the prompt; it measures in the machine's time."""
    return clock.own_ns(round(answer["timings"]["prompt_ms"] * NS_PER_MS))


if __name__ == "__main__":
    main()
