"""The process that spreads one file: it takes the part of every satellite of a group.

Run as ``python -m isl_emu.parts.gossip.spread``. A socket stays in the network namespace in which it was made, so one
process speaks for all of them, and what they say takes the emulated way.
"""

from __future__ import annotations

import asyncio
import random
import signal
import socket
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

from isl_emu.nodes.namespaces import enter_network, in_own_thread
from isl_emu.runs.clock import RunTimes, run_clock, run_parser
from isl_emu.runs.endpoints import FIRST_GOSSIP_PORT, Endpoint, read_endpoints
from isl_emu.runs.journal import Journal
from isl_emu.scenario.parse import load_scenario
from isl_emu.timebase import Clock
from isl_emu.units import NS_PER_S

JOURNAL = "gossip"
WANTED, KNOWN = b"+", b"-"  # what a satellite answers to an offer
NAME_BYTE = 16  # a node's name has 15 characters at the most
LOOK_S = 0.02  # between two looks at whether it has begun, or is over
PATIENCE_NS = 5 * NS_PER_S  # with one that cannot be reached, until another is offered the file


class Group:
    """The satellites of a group, and who of them has the file.

    Args:
        members: where each is.
        journal: takes a record for each satellite that gets it.
    """

    def __init__(
        self, number: int, members: Mapping[str, Endpoint], size_byte: int, seed: int, clock: Clock, journal: Journal
    ):
        self._number, self._members, self._size_byte, self._seed = number, members, size_byte, seed
        self._clock, self._journal, self._port = clock, journal, FIRST_GOSSIP_PORT + number
        self._tellers: dict[str, asyncio.Task[None]] = {}  # of those that have the file

    async def spread(self, source: str, times: RunTimes) -> None:
        """Spread the file from its source until all have it, the run ends, or SIGTERM comes."""
        self._times, stopped = times, asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
        for name, endpoint in self._members.items():
            listener = in_own_thread(_listener, endpoint, self._port)
            await asyncio.start_server(partial(self._hear, name), sock=listener)
        while not stopped.is_set() and self._clock.now_ns() < times.until_ns and not self._all_know():
            if not self._tellers and self._clock.now_ns() >= times.t0_ns:
                self._tell(source)
            await asyncio.sleep(LOOK_S)

    def _all_know(self) -> bool:
        for task in self._tellers.values():
            if task.done():
                task.result()  # what went wrong in it ends the process, and with it the run
        return len(self._tellers) == len(self._members)

    def _tell(self, name: str) -> None:
        """Let a satellite that has the file offer it to the others."""
        self._tellers[name] = asyncio.get_running_loop().create_task(self._offer_to_all(name))

    async def _offer_to_all(self, name: str) -> None:
        others = [other for other in self._members if other != name]
        random.Random(f"{self._seed} {self._number} {name}").shuffle(others)
        for other in others:
            with suppress(OSError, asyncio.TimeoutError, asyncio.IncompleteReadError):
                await asyncio.wait_for(self._offer(name, other), self._clock.real_s(PATIENCE_NS))

    async def _offer(self, name: str, other: str) -> None:
        connection = in_own_thread(_connection, self._members[name])
        try:
            await asyncio.get_running_loop().sock_connect(connection, (self._members[other].address, self._port))
        except BaseException:
            connection.close()
            raise
        reader, writer = await asyncio.open_connection(sock=connection)
        try:
            writer.write(name.ljust(NAME_BYTE).encode())
            if await reader.readexactly(1) == WANTED:
                writer.write(bytes(self._size_byte))
                await reader.readexactly(1)  # until all of it is there
        finally:
            writer.close()

    async def _hear(self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """What a satellite does with an offer."""
        with suppress(OSError, asyncio.IncompleteReadError):
            source, begun_ns = (await reader.readexactly(NAME_BYTE)).decode().strip(), self._t_ns()
            writer.write(KNOWN if name in self._tellers else WANTED)
            if name not in self._tellers:
                await reader.readexactly(self._size_byte)
                if name not in self._tellers:  # another offer may have been faster
                    row = {"group": self._number, "source": source, "target": name, "t_start_ns": begun_ns}
                    self._journal.append({**row, "t_end_ns": self._t_ns(), "size_byte": self._size_byte})
                    self._tell(name)
                writer.write(KNOWN)
        writer.close()

    def _t_ns(self) -> int:
        return self._clock.now_ns() - self._times.t0_ns


def _listener(endpoint: Endpoint, port: int) -> socket.socket:
    enter_network(endpoint.netns)
    return socket.create_server((endpoint.address, port))


def _connection(endpoint: Endpoint) -> socket.socket:
    enter_network(endpoint.netns)
    connection = socket.socket()
    connection.setblocking(False)
    connection.bind((endpoint.address, 0))
    return connection


def main() -> None:
    """Spread one file."""
    parser = run_parser("isl_emu.parts.gossip.spread", __doc__)
    parser.add_argument("--folder", type=Path, required=True, help="the run folder")
    parser.add_argument("--group", type=int, required=True, help="number of the scenario's gossip table")
    options = parser.parse_args()
    scenario, endpoints = load_scenario(options.folder / "scenario.toml"), read_endpoints(options.journal)
    chosen = scenario.gossip[options.group]
    members = {name: endpoints[name] for name in chosen.members(scenario.satellite_names)}
    with Journal(options.journal / f"{JOURNAL}.jsonl") as journal:
        clock = run_clock(options.journal)
        group = Group(options.group, members, chosen.size_byte, scenario.seed, clock, journal)
        asyncio.run(group.spread(chosen.source, RunTimes.of(options)))


if __name__ == "__main__":
    main()
