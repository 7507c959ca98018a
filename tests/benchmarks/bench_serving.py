"""What asking costs: streams at once by the client of a run, and by a thread for each, of a server that only paces.

    python -m isl_emu.machine.guest -- .venv/bin/python tests/benchmarks/bench_serving.py [--streams 100,1000]

Every stream gets one token a second, so a client that keeps up ends with the server. What counts is the processor time
of the asking process for each token, and how late it was to send.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import multiprocessing
import resource
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from isl_emu.parts.questions.asking import Asking
from isl_emu.parts.questions.chooser import Chooser
from isl_emu.parts.questions.client import PATH, Client
from isl_emu.parts.questions.connection import Connector
from isl_emu.parts.questions.exchange import body
from isl_emu.parts.questions.requests import PlannedRequest
from isl_emu.parts.serving.who_serves import ServingSatellites
from isl_emu.runs.endpoints import Endpoint
from isl_emu.timebase import MonotonicClock
from isl_emu.units import NS_PER_S

TOKENS, TOKEN_INTERVAL_S = 10, 1.0
SPREAD_NS = NS_PER_S  # in which all questions are sent
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


@dataclass(frozen=True)
class Cost:
    """What asking has cost."""

    answered: int
    cpu_us_per_token: float
    late_p99_ms: float
    peak_mib: float


def chunk(event: dict | str) -> bytes:
    """A streamed event as llama.cpp's server sends it."""
    data = f"data: {event if isinstance(event, str) else json.dumps(event)}\n\n".encode()
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


TOKEN = chunk({"choices": [{"finish_reason": None, "index": 0, "delta": {"content": " word"}}], "created": 1767225600,
               "id": "chatcmpl-" + 32 * "x", "model": "sat", "object": "chat.completion.chunk"})  # fmt: skip
END = chunk("[DONE]") + b"0\r\n\r\n"


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(HEAD)
    due_s = time.monotonic()
    for _ in range(TOKENS):
        due_s += TOKEN_INTERVAL_S
        await asyncio.sleep(max(0.0, due_s - time.monotonic()))
        writer.write(TOKEN)
    writer.write(END)
    writer.close()


def serve(ready) -> None:
    """The pacing server, in a process of its own."""

    async def run() -> None:
        server = await asyncio.start_server(_answer, "127.0.0.1", 0, backlog=4096)
        ready.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    _raise_limit()
    asyncio.run(run())


def ask_in_one_thread(port: int, streams: int) -> list[float]:
    """By the client of a run; how late each question was sent, in ms."""
    records: list[dict] = []
    with tempfile.TemporaryDirectory() as folder:
        serving = Path(folder) / "serving.jsonl"
        serving.write_text('{"satellite": "sat", "t_ns": 0}\n')
        asking, clock = Asking(100 * NS_PER_S, ("sat",), "sat"), MonotonicClock()
        endpoints = {"gs": Endpoint("", "127.0.0.1", None), "sat": Endpoint("", "127.0.0.1", port)}
        chooser, t0_ns = Chooser(asking, ServingSatellites(serving)), clock.now_ns() + NS_PER_S
        client = Client(
            endpoints=endpoints,
            chooser=chooser,
            asking=asking,
            write=records.append,
            write_attempt=lambda _: None,
            t0_ns=t0_ns,
            connector=Connector(clock, lambda netns: None),
        )
        asyncio.run(_run(client, planned(streams), t0_ns + 200 * NS_PER_S))
    done = [row for row in records if row["outcome"] == "completed"]
    return [(row["t_send_ns"] - row["t_due_ns"]) / 1e6 for row in done]


async def _run(client: Client, requests: list[PlannedRequest], until_ns: int) -> None:
    await client.run(requests, until_ns, asyncio.Event())


def ask_in_threads(port: int, streams: int) -> list[float]:
    """By a thread for each question, with Python's own HTTP client."""
    late_ms: list[float] = []
    t0_s = time.monotonic() + 1.0

    def ask(request: PlannedRequest) -> None:
        late_ms.append((time.monotonic() - t0_s - request.t_due_ns / NS_PER_S) * 1e3)
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("POST", PATH, json.dumps(body(request)))
        response = connection.getresponse()
        while data := response.read1(65_536):
            for line in data.decode().splitlines():
                if line.startswith("data: {"):
                    json.loads(line[6:])

    threads = [threading.Thread(target=ask, args=(request,)) for request in planned(streams)]
    for thread, request in zip(threads, planned(streams)):
        time.sleep(max(0.0, t0_s + request.t_due_ns / NS_PER_S - time.monotonic()))
        thread.start()
    for thread in threads:
        thread.join()
    return late_ms


def planned(streams: int) -> list[PlannedRequest]:
    """Questions at even distances over `SPREAD_NS`."""
    return [PlannedRequest(n, n * SPREAD_NS // streams, "gs", "sat", "Why?", "", 8, 0.0, 1) for n in range(streams)]


def measure(ask: Callable[[int, int], list[float]], streams: int) -> Cost:
    """The cost of one way, in a process of its own."""
    ready, here = multiprocessing.Pipe()
    server = multiprocessing.Process(target=serve, args=(ready,), daemon=True)
    server.start()
    results, there = multiprocessing.Pipe(duplex=False)
    asker = multiprocessing.Process(target=_measured, args=(ask, here.recv(), streams, there))
    asker.start()
    cost = results.recv()
    asker.join()
    server.kill()
    server.join()
    return cost


def _measured(ask: Callable[[int, int], list[float]], port: int, streams: int, results) -> None:
    _raise_limit()
    before = resource.getrusage(resource.RUSAGE_SELF)
    late_ms = sorted(ask(port, streams))
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    p99 = late_ms[int(0.99 * (len(late_ms) - 1))] if late_ms else float("nan")
    results.send(Cost(len(late_ms), cpu_s / (streams * TOKENS) * 1e6, p99, after.ru_maxrss / 1024))


def _raise_limit() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def main() -> None:
    """Measure all ways, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", default="100,1000", help="how many at once")
    columns = "streams", "by", "answered", "us of CPU a token", "late to send, p99", "peak"
    table = Table(*columns, box=None, pad_edge=False)
    for streams in map(int, parser.parse_args().streams.split(",")):
        for name, ask in (("one thread (isl-emu)", ask_in_one_thread), ("a thread each", ask_in_threads)):
            cost = measure(ask, streams)
            figures = f"{cost.cpu_us_per_token:,.0f}", f"{cost.late_p99_ms:,.0f} ms", f"{cost.peak_mib:.0f} MiB"
            table.add_row(f"{streams:,}", name, f"{cost.answered:,}", *figures)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
