"""The weights on their way into orbit: a process in each node that sends or receives them, and a model server on each
satellite as soon as it has them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

from isl_emu.errors import WorkloadError
from isl_emu.network.net import IslNet
from isl_emu.nodes.containers import Container
from isl_emu.parts.live_run import Stage
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
from isl_emu.parts.uplink.plan import read_transfer_plan
from isl_emu.runs.journal import Journal, read_journal
from isl_emu.timebase import MonotonicClock

LOOK_INTERVAL_S = 0.2  # between two looks at who has the file
LAST_WORDS_S = 5.0


class UplinkActivity:
    """The nodes' processes, and what starts servers where the file has come.

    Args:
        processes: by node.
    """

    def __init__(self, processes: Mapping[str, subprocess.Popen], starter: ServerStarter):
        self._processes = processes
        self._starter = starter
        self._killed: set[str] = set()

    def check(self) -> None:
        """Raise a WorkloadError if a node's process ended with an error of its own; write down which were killed."""
        for name, process in self._processes.items():
            status = process.poll() or 0
            if status > 0:
                raise WorkloadError(
                    f"uplink: the process of {name} ended with status {status}, but must last as long as the run; "
                    f"see journal/{_log(name)}"
                )
            if status < 0 and name not in self._killed:
                self._killed.add(name)
                self._starter.give_up(name, f"what received the model was killed (signal {-status})")
        self._starter.check()

    def await_end(self, timeout_s: float) -> None:
        """Wait until all processes have ended, as they do with the run."""
        end_s = time.monotonic() + timeout_s
        for process in self._processes.values():
            _wait(process, max(0.0, end_s - time.monotonic()))
        self.check()


def start_transfer_nodes(stage: Stage, net: IslNet, undo: ExitStack) -> dict[str, subprocess.Popen]:
    """A process in each station and satellite that takes part, waiting to begin; `undo` ends them.

    The file is read once, so that stations send from memory, and no container is charged for it. A container does not
    see the run's folder, so each process gets it as an open descriptor.
    """
    file, names = read_transfer_plan(stage.folder.journal).file, _taking_part(stage)
    journal = os.open(stage.folder.journal, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    undo.callback(os.close, journal)
    processes: dict[str, subprocess.Popen] = {}
    undo.callback(_end, processes)
    with stage.phase("uplink", f"reading {file.name}, and starting what sends it and receives it"):
        read_ahead(file)
        for name in names:
            processes[name] = _start_node(stage, net, name, journal)
        for name, process in processes.items():
            if not process.stdout.readline():
                raise WorkloadError(f"uplink: the process of {name} did not start; see journal/{_log(name)}")
    return processes


def _taking_part(stage: Stage) -> tuple[str, ...]:
    return (*stage.scenario.uplink_stations, *stage.scenario.uplinked_satellites)


def _start_node(stage: Stage, net: IslNet, name: str, journal: int) -> subprocess.Popen:
    words = ["--name", name, "--journal", f"/proc/self/fd/{journal}"]
    command = [sys.executable, "-m", "isl_emu.parts.uplink.node", *words]
    with (stage.folder.journal / _log(name)).open("wb") as messages:
        streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": messages}
        return net.get(name).popen(command, pass_fds=(journal,), **streams)


def _log(name: str) -> str:
    return f"transfer-{name}.log"


@contextmanager
def uplink(
    stage: Stage, containers: Mapping[str, Container], processes: Mapping[str, subprocess.Popen], t0_ns: int
) -> Iterator[UplinkActivity]:
    """Let all nodes begin, and start servers where the file has come, until the end of the run."""
    times = f"{t0_ns} {t0_ns + stage.plan.grid.duration_ns}\n".encode()
    for process in processes.values():
        process.stdin.write(times)
        process.stdin.flush()
    with ServerStarter(stage, containers, t0_ns) as starter:
        yield UplinkActivity(processes, starter)


def _end(processes: Mapping[str, subprocess.Popen]) -> None:
    for process in processes.values():
        process.terminate()
        process.stdin.close()
        process.stdout.close()
    end_s = time.monotonic() + LAST_WORDS_S
    for process in processes.values():
        if not _wait(process, max(0.0, end_s - time.monotonic())):
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen, timeout_s: float) -> bool:
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        return False
    return True


class ServerStarter:
    """Starts the model server of each satellite that has the file, and writes down when it serves, or why it does not.

    A context manager; ends the servers with its block.
    """

    def __init__(self, stage: Stage, containers: Mapping[str, Container], t0_ns: int):
        self._stage = stage
        self._containers = containers
        self._t0_ns = t0_ns
        self._model = read_transfer_plan(stage.folder.journal).file
        self._servers: list[ModelServer] = []
        self._started: dict[str, Future[None]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="uplink", daemon=True)
        cpus = max(stage.scenario.compute_of(name).cpus for name in stage.scenario.uplinked_satellites)
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

    def give_up(self, name: str, error: str) -> None:
        """Write down why a satellite will not serve."""
        with Journal(self._stage.folder.journal / "unserved.jsonl") as journal:
            journal.append({"satellite": name, "error": error})

    def _follow(self) -> None:
        """Start a server for each new line of held.jsonl."""
        held = self._stage.folder.journal / "held.jsonl"
        while not self._stop.wait(LOOK_INTERVAL_S):
            for record in read_journal(held).records:
                if (name := record["satellite"]) not in self._started:
                    self._started[name] = self._starting.submit(self._bring_up, name)

    def _bring_up(self, name: str) -> None:
        group = self._stage.scenario.compute_of(name)

        def start(container: Container) -> ModelServer:
            server = start_server(container, self._model, group.context_tokens, self._stage.folder.journal)
            self._servers.append(server)
            if self._stop.is_set():
                server.process.kill()
            return server

        try:
            load([self._containers[name]], start, is_healthy, lambda *_: None, MonotonicClock())
        except WorkloadError as error:
            if not self._stop.is_set():
                self.give_up(name, str(error))
            return
        write_serving(self._stage, (name,), self._stage.clock.now_ns() - self._t0_ns)
