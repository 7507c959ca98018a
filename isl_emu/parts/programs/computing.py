"""Computing that a user's programs say they do: in exact time, where it takes none, they wait for as long as it would.

A program asks in its node's network, at a Unix socket of an abstract name: a line with the seconds that it would keep
one core busy, answered by a line when they are over. Who computes at the same time in one node shares its container's
CPU, and what energy and heat leave of it; a connection that closes has given up.

Run as ``python -m isl_emu.parts.programs.computing``, it is the process that answers in all nodes of a run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import signal
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from isl_emu.files import write_json
from isl_emu.units import NS_PER_S

if TYPE_CHECKING:
    from isl_emu.parts.live_run import LiveRun

PLACE = "\0isl-emu-compute"  # in a node's network
NODES = "program_nodes.json"  # in the journal: each node's network namespace, and the CPUs of its container
LOOK_INTERVAL_NS = NS_PER_S // 10  # between two looks at what energy leaves


def compute(seconds: float) -> None:
    """Compute for as long as `seconds` of one core, in a program or workload in a node of a run.

    In exact time this waits: for as long as it takes with the node's share of a core, beside what else computes there,
    and with what energy and heat leave of it. In real time it keeps the processor busy for that much CPU time.

    Raises:
        ValueError: it is no time.
        ConnectionError: the run ended meanwhile.
    """
    if not (math.isfinite(seconds) and seconds >= 0.0):
        raise ValueError(f"compute: is {seconds!r} s, but must be a time of 0 or more; correct it")
    with socket.socket(socket.AF_UNIX) as asking:
        try:
            asking.connect(PLACE)
        except ConnectionRefusedError:
            end_ns = time.thread_time_ns() + round(seconds * NS_PER_S)
            while time.thread_time_ns() < end_ns:
                pass
            return
        asking.sendall(f"{seconds!r}\n".encode())
        if not asking.recv(1):
            raise ConnectionError("compute: the run ended before it was done")


class SharedCore:
    """What is computed in one node, all of it at the same rate: without a clock.

    Args:
        cpus: of the node, in cores; one that computes uses at most one.
        pace: the share of it that may be used now, 0 to 1.
    """

    def __init__(self, cpus: float, pace: Callable[[], float] = lambda: 1.0):
        self._cpus, self._pace = cpus, pace
        self._left_ns: dict[object, float] = {}
        self._now_ns = 0
        self._rate = 0.0  # of each, since `_now_ns`
        self.computed_ns = 0.0  # of cores

    def begin(self, who: object, work_ns: float, now_ns: int) -> None:
        """Somebody has to compute for so long on one core."""
        self.advance(now_ns)
        self._left_ns[who] = work_ns
        self._set_rate()

    def give_up(self, who: object, now_ns: int) -> None:
        """He does not want it any more."""
        self.advance(now_ns)
        self._left_ns.pop(who, None)
        self._set_rate()

    def advance(self, now_ns: int) -> list[object]:
        """Compute until now; whose work is done."""
        done_ns = (now_ns - self._now_ns) * self._rate
        self.computed_ns += sum(min(done_ns, left_ns) for left_ns in self._left_ns.values())
        self._left_ns = {who: left_ns - done_ns for who, left_ns in self._left_ns.items()}
        self._now_ns = now_ns
        done = [who for who, left_ns in self._left_ns.items() if left_ns < 0.5 * max(self._rate, 1e-9)]
        for who in done:
            del self._left_ns[who]
        self._set_rate()
        return done

    @property
    def due_ns(self) -> int | None:
        """When to look again: the first is done then, unless the pace changes; None while nobody computes."""
        if not self._left_ns:
            return None
        if self._rate == 0.0:
            return self._now_ns + LOOK_INTERVAL_NS
        return self._now_ns + min(round(min(self._left_ns.values()) / self._rate), LOOK_INTERVAL_NS)

    def _set_rate(self) -> None:
        self._rate = min(1.0, self._cpus / len(self._left_ns)) * self._pace() if self._left_ns else 0.0


def write_nodes(live: LiveRun, nodes: Sequence[str]) -> None:
    """Leave in a run's journal in which nodes programs compute."""
    containers = {name: live.containers[name] for name in nodes}
    places = {name: [container.netns_path, container.cpus] for name, container in containers.items()}
    write_json(live.folder.journal / NODES, places)


async def _serve(journal: Path) -> None:
    from isl_emu.nodes.namespaces import enter_network, in_own_thread  # noqa: PLC0415  not for who only computes
    from isl_emu.parts.serving.modelled_state import PROGRAMS, ModelledState  # noqa: PLC0415
    from isl_emu.runs.clock import run_clock  # noqa: PLC0415

    loop, clock, state = asyncio.get_running_loop(), run_clock(journal), ModelledState.open(journal / PROGRAMS)
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)

    def listen(netns: str) -> socket.socket:
        enter_network(netns)
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(PLACE)
        return listening

    async def serve_node(row: int, netns: str, cpus: float) -> asyncio.Server:
        core = SharedCore(cpus, lambda: float(state.pace_ratio[row]))
        timer: asyncio.TimerHandle | None = None

        def look() -> None:
            nonlocal timer
            for who in core.advance(clock.now_ns()):
                assert isinstance(who, asyncio.Event)
                who.set()
            state.busy_ns[row] = round(core.computed_ns / cpus)
            if timer is not None:
                timer.cancel()
            due_ns = core.due_ns
            timer = None if due_ns is None else loop.call_later(clock.timeout_s(due_ns), look)

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            done = asyncio.Event()
            with suppress(ValueError, ConnectionError):
                core.begin(done, float(await reader.readline()) * NS_PER_S, clock.now_ns())
                look()
                waits = [asyncio.ensure_future(done.wait()), asyncio.ensure_future(reader.read())]
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                for wait in waits:
                    wait.cancel()
                if done.is_set():
                    writer.write(b"\n")
                    await writer.drain()
            core.give_up(done, clock.now_ns())
            look()
            writer.close()

        return await asyncio.start_unix_server(answer, sock=in_own_thread(listen, netns))

    rows = {name: row for row, name in enumerate(state.names)}
    nodes = json.loads((journal / NODES).read_text())
    servers = [await serve_node(rows[name], netns, cpus) for name, (netns, cpus) in nodes.items()]
    print("ready", flush=True)
    await stop.wait()
    for server in servers:
        server.close()


def main() -> None:
    """Answer until SIGTERM."""
    from isl_emu.runs.loop import run_loop  # noqa: PLC0415  not for who only computes

    parser = argparse.ArgumentParser(prog="isl_emu.parts.programs.computing", description=__doc__)
    parser.add_argument("--journal", type=Path, required=True, help="folder of the run's journals")
    run_loop(_serve(parser.parse_args().journal))


if __name__ == "__main__":
    main()
