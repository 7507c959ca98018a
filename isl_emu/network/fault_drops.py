"""How many packets the links of each fault drop while it holds, for whatever reason, by the counters of their ends."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from isl_emu.linkplan.faults import links_hit
from isl_emu.linkplan.plan import LinkPlan
from isl_emu.runs.journal import Journal

JOURNAL = "fault_drops"  # a line for each event that hits links and is over, or was cut off by the end of the run


class FaultDrops:
    """Follows the events of a plan's faults through a replay.

    Args:
        node: at which each link end is, int, (2L,).
    """

    def __init__(self, plan: LinkPlan, node: np.ndarray, folder: Path):
        self._faults, self._node, self._folder = plan.faults, node, folder
        event, link = links_hit(plan, plan.faults)
        ends = np.concatenate([2 * link, 2 * link + 1])
        self._ends = {int(one): ends[np.tile(event, 2) == one] for one in np.unique(event)}
        self._before: dict[int, int] = {}  # by event that holds: what its ends had dropped when it began

    def nodes(self, after_k: int, k: int) -> np.ndarray:
        """The nodes whose ends are to be counted, as events begin or end at the instants after one up to another."""
        ends = [self._ends[event] for event in (*self._begun(after_k, k), *self._over(after_k, k))]
        return np.unique(self._node[np.concatenate(ends)]) if ends else np.empty(0, np.int64)

    def turn(self, after_k: int, k: int, dropped: np.ndarray) -> None:
        """Let events begin and end.

        Args:
            dropped: packets by end, (2L,), all that was dropped until then.
        """
        for event in self._over(after_k, k):
            self._write(event, dropped)
        for event in self._begun(after_k, k):
            self._before[event] = int(dropped[self._ends[event]].sum())

    def close(self, dropped: np.ndarray) -> None:
        """The run is over."""
        for event in list(self._before):
            self._write(event, dropped)

    def _write(self, event: int, dropped: np.ndarray) -> None:
        lost = int(dropped[self._ends[event]].sum()) - self._before.pop(event)
        with Journal(self._folder / f"{JOURNAL}.jsonl") as journal:
            journal.append({"event": event, "packets": lost})

    def _begun(self, after_k: int, k: int) -> list[int]:
        begun = (after_k < self._faults.k_from) & (self._faults.k_from <= k) & (self._faults.k_until > k)
        return [event for event in np.flatnonzero(begun).tolist() if event in self._ends]

    def _over(self, after_k: int, k: int) -> list[int]:
        over = (after_k < self._faults.k_until) & (self._faults.k_until <= k)
        return [event for event in np.flatnonzero(over).tolist() if event in self._before]
