"""What a workload's function gets: the nodes, the time, and a place for what it measures; and calling it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO, TypeVar

import numpy as np

from isl_emu.errors import IslEmuError, WorkloadError
from isl_emu.files import tomllib
from isl_emu.nodes.containers import OUT_VARIABLE
from isl_emu.nodes.namespaces import NetworkThreads
from isl_emu.runs.clock import RunClock, RunTimes
from isl_emu.runs.endpoints import Endpoint
from isl_emu.runs.journal import Journal
from isl_emu.scenario.user_functions import user_function
from isl_emu.timebase import Clock

Result = TypeVar("Result")
KINDS = {"number": (int, float), "text": (str,), "truth value": (bool,)}  # what a column of a user's table may be
# Joining comes first, so that everything else is charged to the node. Writing 0 moves the writer.
_IN_GROUPS = [
    "/bin/sh",
    "-c",
    'for f in $ISL_GROUPS; do echo 0 > $f || exit 125; done; unset ISL_GROUPS; exec "$@"',
    "sh",
]


@dataclass(frozen=True)
class WorkloadContext:
    """What a workload's function gets: the nodes, the time, and a place for what it measures.

    Args:
        nodes: name -> where it is; only those that the scenario gives this workload.
        addresses: name -> IPv4 address, of all nodes.
        options: as they stand in the scenario.
        rng: seeded by the scenario's seed and the workload's name.
        duration_ns: of the run.
        stopped: set when the run ends early.
    """

    nodes: Mapping[str, Endpoint]
    addresses: Mapping[str, str]
    options: Mapping[str, Any]
    rng: np.random.Generator
    duration_ns: int
    write: Callable[[dict[str, Any]], None]
    clock: Clock
    t0_ns: int
    stopped: threading.Event = field(default_factory=threading.Event)
    kinds: dict[str, str] = field(default_factory=dict)  # of the columns recorded so far
    threads: Mapping[str, NetworkThreads] = field(default_factory=dict)  # of each node
    groups: Mapping[str, Sequence[int]] = field(default_factory=dict)  # of each node, open files by which to join
    files: Path = field(default_factory=Path.cwd)  # with a folder for each node

    @property
    def out(self) -> Path:
        """The folder of the first node's files, which are kept; also the working directory."""
        return self.files / next(iter(self.nodes))

    def now_ns(self) -> int:
        """The time of the run: ns since instant 0, negative before it."""
        return self.clock.now_ns() - self.t0_ns

    def wait_until_ns(self, t_ns: int) -> bool:
        """Wait for a time of the run; false if the run is over first, and then it is time to return."""
        t_ns = min(t_ns, self.duration_ns)
        return not self.clock.wait_until_ns(self.t0_ns + t_ns, self.stopped) and t_ns < self.duration_ns

    def in_node(self, node: str, function: Callable[..., Result], *arguments: Any) -> Result:
        """Call a function in a thread that is in the node's network: sockets that it makes stay there."""
        return self.threads[node](function, *arguments)

    def popen(self, node: str, argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Start a program in the node's network, with its share of CPU and memory; it sees the files of the first node.

        Its working directory, and ``$ISL_EMU_OUT``, is the folder of the node's files that are kept.

        Args:
            options: as of `subprocess.Popen`.

        Raises:
            OSError: there is no such program.
        """
        words, out = list(argv), self.files / node
        out.mkdir(parents=True, exist_ok=True)
        environment = dict(os.environ if options.get("env") is None else options["env"])
        options = {"cwd": out, **options, "env": {**environment, OUT_VARIABLE: str(out)}}
        if groups := self.groups.get(node):
            if shutil.which(words[0], path=environment.get("PATH")) is None:
                raise FileNotFoundError(
                    f"workload: {words[0]} is to be started in {node}, but there is no such program"
                )
            options["env"] |= {"ISL_GROUPS": " ".join(f"/proc/self/fd/{group}" for group in groups)}
            options |= {"pass_fds": (*groups, *options.get("pass_fds", ()))}
            words = [*_IN_GROUPS, *words]
        process: subprocess.Popen[Any] = self.threads[node](lambda: subprocess.Popen(words, **options))
        return process

    def record(self, **columns: Any) -> None:
        """Write one row of this workload's table: columns of your own, with `t_ns`, the time of the run.

        Raises:
            WorkloadError: a column is no number, text or truth value, or of another kind than in an earlier row.
        """
        row = {"t_ns": self.now_ns(), **{name: _plain(value) for name, value in columns.items()}}
        for name, value in row.items():
            self._check_kind(name, value)
        self.write(row)

    def _check_kind(self, name: str, value: Any) -> None:
        kind = next((kind for kind, types in KINDS.items() if type(value) in types), None)
        if value is not None and kind is None:
            raise WorkloadError(
                f"workload: column {name} is a {type(value).__name__}, but a table holds {', '.join(KINDS)}; convert it"
            )
        if kind and self.kinds.setdefault(name, kind) != kind:
            raise WorkloadError(
                f"workload: column {name} is a {kind}, but was a {self.kinds[name]} before; keep to one of them"
            )


def call_workload(facts: Mapping[str, Any], threads: Mapping[str, NetworkThreads], told: TextIO) -> None:
    """Load a workload's function, say that it is ready, and call it when the run begins.

    Args:
        facts: what `WorkloadProcess` tells.
        threads: of its nodes, in the order of the scenario.
        told: who listens to this process.
    """
    endpoints = {name: Endpoint(**entry) for name, entry in facts["endpoints"].items()}
    sys.path = [str(Path(entry).absolute()) for entry in sys.path]
    function = user_function(facts["function"], f"workload {facts['name']}: function", 1, limited=False)
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    with Journal(Path(f"/proc/self/fd/{facts['rows']}")) as journal:
        told.write("ready\n")
        line = sys.stdin.readline()
        if not line:  # the run was given up
            return
        times = RunTimes(**json.loads(line))
        context = WorkloadContext(
            nodes={name: endpoints[name] for name in threads},
            addresses={name: endpoint.address for name, endpoint in endpoints.items()},
            options=tomllib.loads(facts["options"]),
            rng=np.random.default_rng([facts["seed"], *facts["name"].encode()]),
            duration_ns=times.duration_ns,
            write=journal.append,
            clock=RunClock(Path(f"/proc/self/fd/{facts['clock']}")),
            t0_ns=times.t0_ns,
            stopped=stopped,
            threads=threads,
            groups=facts["groups"],  # but of the first node: what is started there is in its container anyway
            files=Path(os.environ[OUT_VARIABLE]).parent,
        )
        os.chdir(context.out)  # what the function writes by a relative path is kept
        if context.wait_until_ns(0):
            try:
                function(context)
            except IslEmuError as error:
                traceback.print_exc()
                sys.exit(str(error))  # the last line of its log


def _plain(value: Any) -> Any:
    """A numpy number as Python's own."""
    return value.item() if isinstance(value, np.generic) else value
