"""Which satellites serve, as those who ask know it: read from the run's journal while it grows, for models may arrive
during the run, and from the plan's faults, of which not all are known at once or ever."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from isl_emu.linkplan.fault_events import FaultThing
from isl_emu.linkplan.plan import LinkPlan

SERVING = "serving.jsonl"  # in a run's journal: a line for each satellite, {"satellite": name, "t_ns": since when}


class ServingSatellites:
    """The satellites whose servers have become healthy.

    Args:
        path: SERVING in a run's journal.
        known_down: satellites, from when until when they are known not to serve, ns after instant 0.
    """

    def __init__(self, path: Path, known_down: Sequence[tuple[str, int, int]] = ()):
        self._path, self._known_down = path, known_down
        self._read_byte = 0
        self._since_ns: dict[str, int] = {}
        self._all: frozenset[str] = frozenset()
        self._all_since_ns = 0

    def at(self, t_ns: int) -> frozenset[str]:
        """Those that serve at a time of the run, as far as is known then."""
        started = self._started(t_ns)
        return started.difference(name for name, from_ns, until_ns in self._known_down if from_ns <= t_ns < until_ns)

    def _started(self, t_ns: int) -> frozenset[str]:
        if self._path.exists() and self._path.stat().st_size != self._read_byte:
            with self._path.open("rb") as file:
                file.seek(self._read_byte)
                whole, end, _ = file.read().rpartition(b"\n")
            self._read_byte += len(whole) + len(end)
            for line in whole.splitlines():
                record = json.loads(line)
                self._since_ns.setdefault(record["satellite"], record["t_ns"])
            self._all, self._all_since_ns = frozenset(self._since_ns), max(self._since_ns.values(), default=0)
        if t_ns >= self._all_since_ns:
            return self._all
        return frozenset(name for name, since_ns in self._since_ns.items() if since_ns <= t_ns)


def servers_known_down(plan: LinkPlan) -> list[tuple[str, int, int]]:
    """The satellites that faults keep from serving, and from when until when that is known, ns after instant 0."""
    faults, step_ns = plan.faults, plan.grid.step_ns
    found = []
    for event, number in enumerate(faults.fault.tolist()):
        dead = faults.thing[event] == FaultThing.SERVER and faults.effects[number] != "flip-bits"
        dark = faults.thing[event] == FaultThing.NODE and faults.effects[number] == "power-off"
        k_known, k_forgotten = int(faults.k_known[event]), int(faults.k_forgotten[event])
        if (dead or dark) and k_known < k_forgotten:
            found.append((plan.nodes.names[int(faults.target[event])], k_known * step_ns, k_forgotten * step_ns))
    return found
