"""The weights on their way into orbit: a process in each node that sends or receives them, and a model server on each
satellite as soon as it has them."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress

from isl_emu.errors import WorkloadError
from isl_emu.nodes.containers import Container
from isl_emu.parts.activity import Activity
from isl_emu.parts.live_run import LiveRun
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

LOOK_INTERVAL_S = 0.2  # between two looks at who has the file
LAST_WORDS_S = 5.0
PIPED = "its streams are pipes"


class UplinkActivity(Activity):
    """The nodes' processes, and what starts servers where the file has come.

    Args:
        processes: by node, waiting to begin.
    """

    def __init__(self, live: LiveRun, processes: Mapping[str, subprocess.Popen[bytes]]):
        self._live, self._processes = live, processes
        self._starter: ServerStarter | None = None
        self._killed: set[str] = set()

    def begin(self, times: RunTimes, ending: ExitStack) -> None:
        """Let all nodes begin, and start servers where the file has come."""
        told = f"{times.t0_ns} {times.until_ns}\n".encode()
        for process in self._processes.values():
            assert process.stdin is not None, PIPED
            process.stdin.write(told)
            process.stdin.flush()
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
            if status < 0 and name not in self._killed:
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


def start_transfer_nodes(live: LiveRun) -> dict[str, subprocess.Popen[bytes]]:
    """A process in each station and satellite that takes part, waiting to begin.

    The file is read once, so that stations send from memory, and no container is charged for it. A container does not
    see the run's folder, so each process gets it as an open descriptor.
    """
    scenario, file = live.scenario, read_transfer_plan(live.folder.journal).file
    journal = os.open(live.folder.journal, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    live.undo.callback(os.close, journal)
    processes: dict[str, subprocess.Popen[bytes]] = {}

    def end_all() -> None:
        end(processes.values(), LAST_WORDS_S)
        for process in processes.values():
            assert process.stdin is not None and process.stdout is not None, PIPED
            process.stdin.close()
            process.stdout.close()

    live.undo.callback(end_all)
    with live.phase("uplink", f"reading {file.name}, and starting what sends it and receives it"):
        read_ahead(file)
        for name in (*scenario.uplink_stations, *scenario.uplinked_satellites):
            words = ["--name", name, "--journal", f"/proc/self/fd/{journal}"]
            command = module_command("isl_emu.parts.uplink.node", *words)
            with (live.folder.journal / _log(name)).open("wb") as messages:
                processes[name] = live.net.get(name).popen(
                    command, pass_fds=(journal,), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=messages
                )
        for name, process in processes.items():
            assert process.stdout is not None, PIPED
            if not process.stdout.readline():
                raise WorkloadError(
                    f"uplink: the process of {name} did not start, but every node takes part; see journal/{_log(name)}"
                )
    return processes


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
        """Start a server for each satellite that has the file now."""
        held = self._live.folder.journal / f"{HELD}.jsonl"
        while not self._stop.wait(LOOK_INTERVAL_S):
            for record in read_journal(held).records:
                if (name := record["satellite"]) not in self._started:
                    self._started[name] = self._starting.submit(self._bring_up, name)

    def _bring_up(self, name: str) -> None:
        group = group_of(self._live.scenario, name)

        def start(container: Container) -> ModelServer:
            journal = self._live.folder.journal
            server = start_server(container, self._model, group.context_tokens, journal, self._live.exact)
            self._servers.append(server)
            self._live.watch.add(server.watched())
            if self._stop.is_set():
                server.process.kill()
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
