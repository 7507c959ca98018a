"""The model servers of a run: started in their containers, and awaited until each has loaded its model."""

from __future__ import annotations

import math
import os
import shutil
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from subprocess import DEVNULL, STDOUT, Popen
from typing import Any

from isl_emu.errors import WorkloadError
from isl_emu.nodes.containers import Container
from isl_emu.nodes.namespaces import enter_network, in_own_thread
from isl_emu.runs.endpoints import MODEL_PORT, WORDS_PORT
from isl_emu.runs.process import Watched, kill, last_line, module_command
from isl_emu.scenario.compute import HEALTH_PATH
from isl_emu.timebase import Clock, MonotonicClock
from isl_emu.units import NS_PER_S

Report = Callable[[float, str], None]  # how much is done (0..1), and what is happening

# Loading the bundled model takes 0.3 s of a core natively and 1.5 s in a guest (page faults), an 8-billion one minutes.
LOAD_TIMEOUT_NS = 900 * NS_PER_S
POLL_INTERVAL_NS = NS_PER_S // 5
POLL_TIMEOUT_S = 2.0
READ_BYTE = 1 << 20


@dataclass(frozen=True)
class ModelServer:
    """A model server's process in a satellite's container."""

    container: Container
    process: Popen[bytes]
    log: Path
    health: str = HEALTH_PATH
    port: int = MODEL_PORT
    begin: Callable[[Container], ModelServer] | None = None  # starts one like it, which ends with the run
    weights: Path | None = None  # a copy of its own, if it has one

    @property
    def name(self) -> str:
        """The satellite's name."""
        return self.container.name

    def watched(self, what: str = "model server") -> Watched:
        """It as a process that is to last as long as the run."""
        return Watched(self.process, what, self.name, self.log, self.container.oom_kills)


@contextmanager
def serve(
    containers: Sequence[Container],
    model: Path,
    context_tokens: int,
    journal: Path,
    report: Report,
    exact: bool = False,
    own_weights: Collection[str] = (),
) -> Iterator[list[ModelServer]]:
    """Model servers in all containers, healthy when the block begins and ended when it ends.

    The output of each goes to ``server-<satellite>.log`` in `journal`.

    Args:
        exact: in exact time, see `start_server`.
        own_weights: satellites of which each has a copy of the model to itself, in `journal`.

    Raises:
        WorkloadError: a server ended instead of becoming healthy, or took too long.
    """
    read_ahead(model)

    def start(container: Container) -> ModelServer:
        if container.name not in own_weights:
            return start_server(container, model, context_tokens, journal, exact)
        weights = journal / f"weights-{container.name}.gguf"
        if not weights.exists():  # else it starts again, with what they have become
            shutil.copyfile(model, weights)
        return start_server(container, model, context_tokens, journal, exact, weights)

    with serve_with(containers, start, report) as servers:
        yield servers


@contextmanager
def serve_with(
    containers: Sequence[Container],
    start: Callable[[Container], ModelServer],
    report: Report,
    health: str = HEALTH_PATH,
) -> Iterator[list[ModelServer]]:
    """The same with servers of any kind.

    Args:
        health: the page that has status 200 once a server is ready.
    """
    servers: list[ModelServer] = []

    def start_one(container: Container) -> ModelServer:
        servers.append(replace(start(container), health=health, begin=start_one))
        return servers[-1]

    try:
        load(containers, start_one, is_healthy, report, MonotonicClock())
        yield servers
    finally:
        stop_servers(servers)


def load(
    containers: Sequence[Container],
    start: Callable[[Container], ModelServer],
    healthy: Callable[[ModelServer], bool],
    report: Report,
    clock: Clock,
) -> None:
    """Start a server in each container and wait until each says that its model is loaded.

    Loading is computing, so only as many load at once as the cores can feed at their containers' shares.

    Raises:
        WorkloadError: a server ended, with the last line of its log, or took longer than `LOAD_TIMEOUT_NS`.
    """
    waiting, loading = deque(containers), dict[ModelServer, int]()
    while waiting or loading:
        while waiting and len(loading) < loads_at_once(waiting[0].cpus):
            loading[start(waiting.popleft())] = clock.now_ns() + LOAD_TIMEOUT_NS
        clock.sleep_until_ns(clock.now_ns() + POLL_INTERVAL_NS)
        for server, end_ns in loading.items():
            _check_loading(server, end_ns, clock.now_ns())
        loading = {server: end_ns for server, end_ns in loading.items() if not healthy(server)}
        done = len(containers) - len(waiting) - len(loading)
        report(done / len(containers), f"{done} of {len(containers)} models loaded")


def loads_at_once(cpus: float) -> int:
    """How many servers with a share of `cpus` cores keep all cores busy, and one more."""
    return math.ceil(len(os.sched_getaffinity(0)) / cpus) + 1


def is_healthy(server: ModelServer) -> bool:
    """Ask a server over HTTP whether its model is loaded."""
    container = server.container
    return answers(container.netns_path, container.address, server.health, POLL_TIMEOUT_S, server.port)


def answers(netns_path: str, address: str, page: str, timeout_s: float, port: int = MODEL_PORT) -> bool:
    """Whether a page of a node's server has status 200, asked in the node itself."""

    def ask() -> bool:
        enter_network(netns_path)
        connection = HTTPConnection(address, port, timeout=timeout_s)
        try:
            connection.request("GET", page)
            return connection.getresponse().status == 200
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()

    return in_own_thread(ask)


def stop_servers(servers: Sequence[ModelServer]) -> None:
    """End all servers; they keep nothing that is worth an orderly end."""
    kill(server.process for server in servers)


def start_server(
    container: Container,
    model: Path,
    context_tokens: int,
    journal: Path,
    exact: bool = False,
    weights: Path | None = None,
) -> ModelServer:
    """Start a model server in a container; it is loading its model when this returns.

    Args:
        exact: in exact time, where one at a board's pace stands in front of it.
        weights: in place of the model, wherever they are: it gets them open.
    """
    port = WORDS_PORT if exact else MODEL_PORT
    with ExitStack() as closing:
        opened = [] if weights is None else [closing.enter_context(weights.open("rb")).fileno()]
        words = ["--model", str(model) if weights is None else f"/proc/self/fd/{opened[0]}"]
        words += ["--host", container.address, "--port", str(port), "--context", str(context_tokens)]
        command = module_command("isl_emu.parts.serving.model_server", *words)
        server = start_program(container, command, journal, pass_fds=opened)
    return replace(server, port=port, weights=weights)


def start_program(container: Container, command: Sequence[str], journal: Path, **options: Any) -> ModelServer:
    """Start any program as a container's server; it is not ready yet when this returns.

    Args:
        options: as of `Container.popen`.
    """
    log = journal / f"server-{container.name}.log"
    with log.open("ab") as output:
        process = container.popen(command, stdin=DEVNULL, stdout=output, stderr=STDOUT, **options)
    return ModelServer(container, process, log)


def read_ahead(model: Path) -> None:
    """Read the weights once from here, so that their pages are charged to no container's memory limit."""
    buffer = memoryview(bytearray(READ_BYTE))
    with model.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def _check_loading(server: ModelServer, end_ns: int, now_ns: int) -> None:
    status = server.process.poll()
    if status is None:
        if now_ns > end_ns:
            raise WorkloadError(
                f"model server on {server.name}: is not ready after {LOAD_TIMEOUT_NS // NS_PER_S} s, but it must be "
                "before the run begins; raise compute.cpus, or use a smaller model"
            )
        return
    if server.container.oom_kills():
        raise WorkloadError(
            f"model server on {server.name}: needs more memory than compute.memory allows, but it must hold its "
            "working set; raise compute.memory, or lower compute.context_tokens"
        )
    last = last_line(server.log)
    raise WorkloadError(
        f"model server on {server.name}: ended with status {status} ({last}), but it must serve the whole run; "
        f"see {server.log}"
    )
