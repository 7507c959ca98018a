"""A workload of a user's own: a function in Python that makes traffic between nodes while the sky moves.

Run as ``python -m isl_emu.parts.programs.user_workload``, a process for each `[[workload]]` of the scenario.
"""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from isl_emu.errors import WorkloadError
from isl_emu.nodes.namespaces import enter_network, in_own_thread
from isl_emu.runs.clock import run_clock
from isl_emu.runs.endpoints import Endpoint, read_endpoints
from isl_emu.runs.journal import Journal
from isl_emu.runs.times import run_parser
from isl_emu.scenario.parse import load_scenario
from isl_emu.scenario.user_functions import user_function
from isl_emu.timebase import Clock

Result = TypeVar("Result")
KINDS = {"number": (int, float), "text": (str,), "truth value": (bool,)}  # what a column of a user's table may be


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

    def now_ns(self) -> int:
        """The time of the run: ns since instant 0, negative before it."""
        return self.clock.now_ns() - self.t0_ns

    def wait_until_ns(self, t_ns: int) -> bool:
        """Wait for a time of the run; false if the run is over first, and then it is time to return."""
        t_ns = min(t_ns, self.duration_ns)
        return not self.clock.wait_until_ns(self.t0_ns + t_ns, self.stopped) and t_ns < self.duration_ns

    def in_node(self, node: str, function: Callable[..., Result], *arguments: Any) -> Result:
        """Call a function in a thread that is in the node's network: sockets that it makes stay there."""
        return in_own_thread(_call_in, self.nodes[node].netns, function, arguments)

    def popen(self, node: str, argv: Sequence[str], **options: Any) -> subprocess.Popen:
        """Start a program in the node's network (not in its container); options are those of `subprocess.Popen`."""
        return in_own_thread(_start_in, self.nodes[node].netns, list(argv), options)

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


def _call_in(netns: str, function: Callable[..., Result], arguments: tuple[Any, ...]) -> Result:
    enter_network(netns)
    return function(*arguments)


def _start_in(netns: str, argv: list[str], options: dict[str, Any]) -> subprocess.Popen:
    enter_network(netns)
    return subprocess.Popen(argv, **options)


def main() -> None:
    """Call the function of one workload when the run begins; SIGTERM sets its `stopped`."""
    parser = run_parser("isl_emu.parts.programs.user_workload", __doc__)
    parser.add_argument("--folder", type=Path, required=True, help="the run folder")
    parser.add_argument("--name", required=True, help="of the workload")
    options = parser.parse_args()
    scenario = load_scenario(options.folder / "scenario.toml")
    workload = next(workload for workload in scenario.workload if workload.name == options.name)
    function = user_function(workload.function, f"workload {workload.name}: function")
    endpoints = read_endpoints(options.journal)
    clock = run_clock(options.journal)
    with Journal(options.journal / f"{workload.name}.jsonl") as journal:
        context = WorkloadContext(
            nodes={name: endpoints[name] for name in workload.nodes},
            addresses={name: endpoint.address for name, endpoint in endpoints.items()},
            options=workload.options,
            rng=np.random.default_rng([scenario.seed, *workload.name.encode()]),
            duration_ns=options.until_ns - options.t0_ns,
            write=journal.append,
            clock=clock,
            t0_ns=options.t0_ns,
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: context.stopped.set())
        if context.wait_until_ns(0):
            function(context)


if __name__ == "__main__":
    main()
