"""Model servers as faults see them: a process in a container, and in exact time what stands in front of it."""

from __future__ import annotations

import os
import signal
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np

from isl_emu.errors import WorkloadError
from isl_emu.parts.live_run import LiveRun
from isl_emu.parts.residents import Resident, flip_bits
from isl_emu.parts.serving.model_file import read_header
from isl_emu.parts.serving.modelled_state import FILE, ModelledState
from isl_emu.parts.serving.servers import ModelServer, is_healthy
from isl_emu.runs.process import cause_of_death
from isl_emu.units import NS_PER_MS, NS_PER_S

LOOK_NS = NS_PER_S // 20  # in real time, between two looks at whether a model is loaded
EXACT_LOOK_NS = NS_PER_MS  # in exact time, where loading takes none
PATIENCE_NS = 900 * NS_PER_S


@dataclass(frozen=True)
class Front:
    """The one process that serves at boards' paces, and the place of one satellite in its state."""

    state: ModelledState
    row: int
    pid: int


class ServerResident(Resident):
    """The model server of a satellite.

    Args:
        server: in its container; None if its words are modelled.
        front: which gives its words at a board's pace, if anything does.
    """

    what = "model server"
    is_server = True

    def __init__(self, live: LiveRun, node: str, server: ModelServer | None, front: Front | None = None):
        self.node, self._live, self.server, self.front = node, live, server, front

    def pids(self) -> Collection[int]:
        if self.server is None or self.server.process.poll() is not None:
            return ()
        return (self.server.process.pid,)

    def hidden(self, state: int) -> None:
        if self.front is not None:
            self.front.state.fault[self.front.row] = state
            os.kill(self.front.pid, signal.SIGUSR1)

    def start(self) -> str:
        """Its model is loaded anew; questions that it had, and what it had read before, are lost."""
        live, clock = self._live, self._live.clock
        if self.server is not None and self.server.process.poll() is not None:
            assert self.server.begin is not None, "it was started so"
            server = self.server.begin(self.server.container)
            begun_ns = clock.now_ns()
            while not is_healthy(server):
                if (status := server.process.poll()) is not None or clock.now_ns() > begun_ns + PATIENCE_NS:
                    why = cause_of_death(status, log=server.log)
                    raise WorkloadError(f"model server on {self.node}: was to start again, but {why}; see its log")
                clock.sleep_until_ns(clock.now_ns() + (EXACT_LOOK_NS if live.exact else LOOK_NS))
            live.watch.add(server.watched())
            self.server = server
        if self.server is None and self.node in live.scenario.uplinked_satellites:
            return f"{self.what} waits for its model"
        return f"{self.what} serves again"

    def flip(self, bits: int, buffer: str | None, rng: np.random.Generator) -> str:
        """In its own copy of the weights, which it has mapped into its memory: it works on with what they are then."""
        if self.server is None or self.server.weights is None:
            return super().flip(bits, buffer, rng)
        weights = self.server.weights
        with weights.open("r+b", buffering=0) as file:
            return flip_bits(file, read_header(weights).data_byte, weights.stat().st_size, bits, rng)


def enter_servers(live: LiveRun, servers: Iterable[ModelServer]) -> None:
    """Enter servers in containers among what runs in the nodes, and watch them."""
    known = _entered(live)
    for server in servers:
        live.watch.add(server.watched())
        if server.name in known:  # what stands in front of it was there first
            known[server.name].server = server
        else:
            live.residents.append(ServerResident(live, server.name, server))


def enter_fronts(live: LiveRun, pid: int) -> None:
    """The same with servers at a board's pace, of which some have a server in a container behind them.

    Args:
        pid: of the process that serves.
    """
    state, known = ModelledState.open(live.folder.journal / FILE), _entered(live)
    for row, name in enumerate(state.names):
        front = Front(state, row, pid)
        if name in known:
            known[name].front = front
        else:
            live.residents.append(ServerResident(live, name, None, front))


def _entered(live: LiveRun) -> dict[str, ServerResident]:
    return {one.node: one for one in live.residents if isinstance(one, ServerResident)}
