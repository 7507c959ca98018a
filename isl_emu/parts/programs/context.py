"""What a workload's function gets: the nodes, the time, and a place for what it measures."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from isl_emu.errors import WorkloadError
from isl_emu.nodes.containers import OUT_VARIABLE
from isl_emu.nodes.namespaces import enter_network, in_own_thread
from isl_emu.runs.endpoints import Endpoint
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
    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)  # of each node, the files by which to join
    machine: int | None = None  # the descriptor through which they are reached
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

        def call() -> Result:
            enter_network(self.nodes[node].netns)
            return function(*arguments)

        return in_own_thread(call)

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
            machine = (self.machine,) if self.machine is not None else ()
            options["env"] |= {"ISL_GROUPS": " ".join(groups)}
            options |= {"pass_fds": (*machine, *options.get("pass_fds", ()))}
            words = [*_IN_GROUPS, *words]

        def start() -> subprocess.Popen[Any]:
            enter_network(self.nodes[node].netns)
            return subprocess.Popen(words, **options)

        return in_own_thread(start)

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


def _plain(value: Any) -> Any:
    """A numpy number as Python's own."""
    return value.item() if isinstance(value, np.generic) else value
