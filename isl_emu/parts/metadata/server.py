"""Tells nodes of themselves, in one process for all of a kernel: over HTTP at an address in each, and in files.

Run as ``python -m isl_emu.parts.metadata.server``.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from isl_emu.files import write_whole
from isl_emu.linkplan.plan_file import read_plan
from isl_emu.nodes.namespaces import enter_network, in_own_thread
from isl_emu.parts.metadata.view import NodeViews
from isl_emu.parts.power.governor import JOURNAL as ENERGY_JOURNAL
from isl_emu.routing.forwarding import read_routes
from isl_emu.runs.clock import RunClock, RunTimes, run_clock, run_parser
from isl_emu.runs.directory import RunDirectory, runs_root
from isl_emu.runs.endpoints import METADATA_ADDRESSES, METADATA_PORT, Endpoint, read_endpoints
from isl_emu.runs.folder import RunFolder
from isl_emu.runs.journal import read_latest
from isl_emu.runs.loop import run_loop
from isl_emu.runs.portion import Portion
from isl_emu.scenario.parse import load_scenario
from isl_emu.timebase import EXACT_TIME
from isl_emu.units import DURATION_NS, parse_quantity

PATIENCE_S = 10.0  # for a question
LONGEST_QUESTION = 8_192  # characters
STATUS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed"}


class MetadataServer:
    """Answers nodes' questions, and writes their files.

    Args:
        run: in whose folder the files lie.
    """

    def __init__(self, folder: RunFolder, run: RunDirectory, clock: RunClock, times: RunTimes):
        self._plan = plan = read_plan(folder.plan)
        scenario = load_scenario(folder.scenario)
        kind = "exact" if EXACT_TIME in os.environ else "real"
        self._views = NodeViews(scenario, plan, read_routes(folder.routes, plan), kind)
        self._energy_journal = folder.journal / f"{ENERGY_JOURNAL}.jsonl"
        self._energy: tuple[int, dict[str, Any]] = (-1, {})
        self._run, self._clock, self._times = run, clock, times
        here = Portion.read(folder.path, folder.part, len(plan.nodes.names)).here
        informed = ((plan.nodes.index(name), name) for name in scenario.informed_nodes)
        self._nodes = {node: name for node, name in informed if here[node]}

    async def run(self, stop: asyncio.Event, endpoints: Mapping[str, Endpoint]) -> None:
        """Serve until the run ends, or `stop`."""
        served = [
            await asyncio.start_server(lambda *streams, node=node: self._serve(node, *streams), sock=one)
            for node, name in self._nodes.items()
            for one in in_own_thread(_listen, endpoints[name].netns)
        ]
        for k in range(self._plan.grid.count):
            if k and await self._wait(self._times.t0_ns + k * self._plan.grid.step_ns, stop):
                break
            for node, name in self._nodes.items():
                write_whole(self._run.about(name), self.text(node, k))
        await self._wait(self._times.until_ns, stop)
        for server in served:
            server.close()

    def text(self, node: int, k: int) -> str:
        """What a node is told at instant `k`, by both ways."""
        return json.dumps(self._views.of(node, k, self._energy_before(k)), indent=1) + "\n"

    def answer(self, node: int, method: str, target: str, t_ns: int) -> tuple[int, str]:
        """The answer to a question of a node: its status, and JSON."""
        place, k = urlsplit(target), self._plan.grid.instant_at(t_ns)
        words = [unquote(word) for word in place.path.split("/") if word]
        if method != "GET":
            return _refusal(405, f"{method} is asked, but all that is here is read; use GET")
        if not words:
            return 200, self.text(node, k)
        if words == ["now"]:
            utc: datetime = self._plan.grid.utc(t_ns)
            return 200, json.dumps({"utc": utc.isoformat(), "t_ns": t_ns}) + "\n"
        if words[0] == "path" and len(words) == 2:
            return self._path(node, words[1], parse_qs(place.query).get("at", [""])[0], k)
        found = self._views.of(node, k, self._energy_before(k))
        if len(words) == 1 and words[0] in found:
            return 200, json.dumps(found[words[0]], indent=1) + "\n"
        return _refusal(404, f"{place.path} is asked, but here are now, path/NODE, {', '.join(found)}; ask for one")

    def _path(self, node: int, destination: str, at: str, k: int) -> tuple[int, str]:
        if destination not in self._plan.nodes.names:
            return _refusal(404, f"{destination} is asked, but there is no such node; ask for one of the scenario")
        try:
            k = self._plan.grid.instant_at(parse_quantity(at, DURATION_NS)) if at else k
        except ValueError as error:
            return _refusal(400, f"at {error}")
        return 200, json.dumps(self._views.ways(node, self._plan.nodes.index(destination), k), indent=1) + "\n"

    def _energy_before(self, k: int) -> dict[str, Any]:
        """The last row of each satellite's energy that was complete before an instant: not by chance that of it."""
        if self._energy[0] != k:
            rows = read_latest(self._energy_journal) if self._energy_journal.exists() else []
            self._energy = k, {row["satellite"]: row for row in rows if row["t_ns"] < k * self._plan.grid.step_ns}
        return self._energy[1]

    async def _serve(self, node: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.TimeoutError):
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE_S)
            method, target, *_ = [*head.decode("latin-1").split("\r\n", 1)[0].split(" "), ""]
            status, body = self.answer(node, method, target, self._clock.now_ns() - self._times.t0_ns)
            content = body.encode()
            lines = f"HTTP/1.1 {status} {STATUS[status]}", "Content-Type: application/json", "Connection: close"
            writer.write("\r\n".join([*lines, f"Content-Length: {len(content)}", "", ""]).encode() + content)
            await asyncio.wait_for(writer.drain(), PATIENCE_S)
        writer.close()

    async def _wait(self, t_ns: int, stop: asyncio.Event) -> bool:
        """Wait for a time on the run's clock: whether `stop` came before."""
        while not stop.is_set() and self._clock.now_ns() < t_ns:
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(stop.wait(), self._clock.timeout_s(t_ns))
        return stop.is_set()


def _refusal(status: int, sentence: str) -> tuple[int, str]:
    return status, json.dumps({"error": sentence}) + "\n"


def _listen(netns: str) -> list[socket.socket]:
    """A socket for each of the addresses that a node's network has."""
    enter_network(netns)
    opened = []
    for address in METADATA_ADDRESSES:
        with suppress(OSError):  # a kernel without IPv6
            opened.append(socket.create_server((address, METADATA_PORT), family=_family(address)))
    return opened


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


async def _main(folder: RunFolder, times: RunTimes, run_id: str) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    run = RunDirectory(run_id, runs_root() / run_id)
    server = MetadataServer(folder, run, run_clock(folder.journal), times)
    await server.run(stop, read_endpoints(folder.journal))


def main() -> None:
    """Tell nodes of themselves until the run ends."""
    parser = run_parser("isl_emu.parts.metadata.server", __doc__)
    parser.add_argument("--run", required=True, help="id of the run")
    parser.add_argument("--part", type=int, required=True, help="whose nodes are told, of guests that share the run")
    options = parser.parse_args()
    folder = RunFolder(options.journal.parent, options.part)
    run_loop(_main(folder, RunTimes.of(options), options.run))


if __name__ == "__main__":
    main()
