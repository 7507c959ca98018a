"""The weights on their way into orbit: a process in each node that sends or receives them, and a model server on each
satellite as soon as it has them."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Collection
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace

from isl_emu.errors import WorkloadError
from isl_emu.nodes.containers import Container
from isl_emu.parts.activity import Activity
from isl_emu.parts.live_run import LiveRun
from isl_emu.parts.residents import Resident
from isl_emu.parts.serving.residents import enter_servers
from isl_emu.parts.serving.servers import (
    ModelServer,
    is_healthy,
    load,
    loads_at_once,
    read_ahead,
    start_server,
    stop_servers,
)
from isl_emu.parts.serving.start import write_serving
from isl_emu.parts.uplink.plan import HELD, UNSERVED, read_transfer_plan
from isl_emu.runs.clock import RunTimes
from isl_emu.runs.journal import Journal, read_journal
from isl_emu.runs.process import end, module_command
from isl_emu.scenario.compute import Compute
from isl_emu.scenario.model import Scenario
from isl_emu.timebase import MonotonicClock
from isl_emu.units import NS_PER_MS

LOOK_INTERVAL_NS = 200 * NS_PER_MS  # between two looks at who has the file
LAST_WORDS_S = 5.0
PIPED = "its streams are pipes"


@dataclass
class TransferNodes:
    """The processes of all nodes that take part, by node.

    Args:
        journal: an open descriptor of the run's journal, since a container does not see the folder.
        told: what each is told when it is to begin.
    """

    live: LiveRun
    journal: int
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    told: bytes = b""

    def start(self, name: str) -> None:
        """Start the process of a node."""
        command = module_command(
            "isl_emu.parts.uplink.node", "--name", name, "--journal", f"/proc/self/fd/{self.journal}"
        )
        with (self.live.folder.journal / _log(name)).open("ab") as messages:
            self.processes[name] = self.live.net.get(name).popen(
                command, pass_fds=(self.journal,), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=messages
            )

    def await_ready(self, name: str) -> None:
        """Wait until it waits to begin.

        Raises:
            WorkloadError: it has ended.
        """
        output = self.processes[name].stdout
        assert output is not None, PIPED
        if not output.readline():
            raise WorkloadError(
                f"uplink: the process of {name} did not start, but every node takes part; see journal/{_log(name)}"
            )

    def begin(self, name: str) -> None:
        """Let it begin."""
        entrance = self.processes[name].stdin
        assert entrance is not None, PIPED
        entrance.write(self.told)
        entrance.flush()

    def close(self, name: str) -> None:
        """Let go of its streams."""
        for stream in (self.processes[name].stdin, self.processes[name].stdout):
            assert stream is not None, PIPED
            with suppress(BrokenPipeError):
                stream.close()

    def end(self) -> None:
        """End all."""
        end(self.processes.values(), LAST_WORDS_S)
        for name in self.processes:
            self.close(name)


class ReceiverResident(Resident):
    """What receives the model on a satellite: it begins anew with the pieces that it had verified."""

    what = "what receives the model"

    def __init__(self, node: str, nodes: TransferNodes):
        self.node, self._nodes = node, nodes

    def pids(self) -> Collection[int]:
        process = self._nodes.processes[self.node]
        return () if process.poll() is not None else (process.pid,)

    def start(self) -> str:
        if not self.pids():
            self._nodes.close(self.node)
            self._nodes.start(self.node)
            self._nodes.await_ready(self.node)
            self._nodes.begin(self.node)
        return f"{self.what} goes on"


class UplinkActivity(Activity):
    """The nodes' processes, and what starts servers where the file has come.

    Args:
        nodes: which wait to begin.
    """

    def __init__(self, live: LiveRun, nodes: TransferNodes):
        self._live, self._nodes, self._processes = live, nodes, nodes.processes
        self._starter: ServerStarter | None = None
        self._killed: set[str] = set()

    def begin(self, times: RunTimes, ending: ExitStack) -> None:
        """Let all nodes begin, and start servers where the file has come."""
        self._nodes.told = f"{times.t0_ns} {times.until_ns}\n".encode()
        for name in self._processes:
            self._nodes.begin(name)
        self._starter = ending.enter_context(ServerStarter(self._live, times.t0_ns))

    def check(self) -> None:
        """Raise a WorkloadError if a node's process ended with an error of its own; write down which were killed."""
        for name, process in self._processes.items():
            status = process.poll() or 0
            if status > 0:
                raise WorkloadError(
                    f"uplink: the process of {name} ended with status {status}, but must last as long as the run; "
                    f"see journal/{_log(name)}"
                )
            if status < 0 and name not in self._killed and not self._live.watch.is_declared(process.pid):
                self._killed.add(name)
                give_up(self._live, name, f"what received the model was killed (signal {-status})")
        if self._starter is not None:
            self._starter.check()

    def await_end(self, timeout_s: float) -> None:
        """Wait until all processes have ended, as they do with the run."""
        end_s = time.monotonic() + timeout_s
        for process in self._processes.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, end_s - time.monotonic()))
        self.check()


def start_transfer_nodes(live: LiveRun) -> TransferNodes:
    """A process in each station and satellite that takes part, waiting to begin.

    The file is read once, so that stations send from memory, and no container is charged for it.
    """
    scenario, file = live.scenario, read_transfer_plan(live.folder.journal).file
    journal = os.open(live.folder.journal, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    live.undo.callback(os.close, journal)
    nodes = TransferNodes(live, journal)
    live.undo.callback(nodes.end)
    with live.phase("uplink", f"reading {file.name}, and starting what sends it and receives it"):
        read_ahead(file)
        for name in (*scenario.uplink_stations, *scenario.uplinked_satellites):
            nodes.start(name)
        for name in nodes.processes:
            nodes.await_ready(name)
    live.residents.extend(ReceiverResident(name, nodes) for name in scenario.uplinked_satellites)
    return nodes


def _log(name: str) -> str:
    return f"transfer-{name}.log"


def give_up(live: LiveRun, name: str, error: str) -> None:
    """Write down why a satellite will not serve."""
    with Journal(live.folder.journal / f"{UNSERVED}.jsonl") as journal:
        journal.append({"satellite": name, "error": error})
    live.watch.record("model on its way", name, error)


class ServerStarter:
    """Starts the model server of each satellite that has the file, and writes down when it serves, or why it does not.

    A context manager; ends the servers with its block.
    """

    def __init__(self, live: LiveRun, t0_ns: int):
        self._live = live
        self._t0_ns = t0_ns
        self._model = read_transfer_plan(live.folder.journal).file
        self._servers: list[ModelServer] = []
        self._started: dict[str, Future[None]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="uplink", daemon=True)
        cpus = max(group_of(live.scenario, name).cpus for name in live.scenario.uplinked_satellites)
        self._starting = ThreadPoolExecutor(loads_at_once(cpus))

    def __enter__(self) -> ServerStarter:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        stop_servers(self._servers)
        self._starting.shutdown(cancel_futures=True)

    def check(self) -> None:
        """Raise what went wrong beside the servers themselves."""
        for future in list(self._started.values()):
            if future.done() and not future.cancelled():
                future.result()

    def _follow(self) -> None:
        """Start a server for each satellite that has the file; it looks at times of the run, whenever it was built."""
        held, clock = self._live.folder.journal / f"{HELD}.jsonl", self._live.clock
        while True:
            looks = (clock.now_ns() - self._t0_ns) // LOOK_INTERVAL_NS
            if clock.wait_until_ns(self._t0_ns + (looks + 1) * LOOK_INTERVAL_NS, self._stop):
                return
            for record in read_journal(held).records:
                if (name := record["satellite"]) not in self._started:
                    self._started[name] = self._starting.submit(self._bring_up, name)

    def _bring_up(self, name: str) -> None:
        group = group_of(self._live.scenario, name)

        def begin(container: Container) -> ModelServer:
            journal = self._live.folder.journal
            server = start_server(container, self._model, group.context_tokens, journal, self._live.exact)
            server = replace(server, begin=begin)
            self._servers.append(server)
            if self._stop.is_set():
                server.process.kill()
            return server

        def start(container: Container) -> ModelServer:
            server = begin(container)
            enter_servers(self._live, [server])
            return server

        try:
            load([self._live.containers[name]], start, is_healthy, lambda *_: None, MonotonicClock())
        except WorkloadError as error:
            if not self._stop.is_set():
                give_up(self._live, name, str(error))
            return
        write_serving(self._live, (name,), self._live.clock.now_ns() - self._t0_ns)


def group_of(scenario: Scenario, satellite: str) -> Compute:
    """The group as one of which a satellite serves the model that it gets."""
    group = scenario.compute_of(satellite)
    assert group is not None, "the scenario was checked: who gets a model serves one"
    return group
