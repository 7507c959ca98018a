"""What computers whose work is modelled share with the rest of a run: how fast each may be, and how much each has done.

One array in a memory-mapped file, a row for each satellite: whoever governs energy writes a pace, who works writes what
it did, and both read the other's column at no cost. Each value is one aligned machine word, so a reader sees the old
one or the new one. Each kind of work has a file of its own, since nobody else may write its rows.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from isl_emu.timebase import Clock
from isl_emu.units import NS_PER_S

FILE = "modelled_state"  # in the journal folder: that of servers at a board's pace
TRAINED, SPLIT, PROGRAMS = "training_state", "split_state", "program_state"  # and those of other work
OBSERVED = "observation_state"
FILES = FILE, TRAINED, SPLIT, PROGRAMS, OBSERVED
_ROW = np.dtype([("name", "S64"), ("pace_ratio", "f8"), ("busy_ns", "i8"), ("tokens", "i8"), ("fault", "i8")])


@dataclass(frozen=True)
class ModelledState:
    """The shared state of S modelled satellites; the arrays are views of the file, so what is written is seen by all.

    Args:
        names: node names, in the order of the rows.
        pace_ratio: float64 (S,), 0 to 1: share of its full pace at which a server computes; 0 stops it.
        busy_ns: int64 (S,), emulated time that it has spent on prompts and answers.
        tokens: int64 (S,), tokens that it has answered.
        fault: int64 (S,), a state of `residents`; who changes it tells the process that serves by SIGUSR1.
    """

    names: tuple[str, ...]
    pace_ratio: np.ndarray
    busy_ns: np.ndarray
    tokens: np.ndarray
    fault: np.ndarray

    @classmethod
    def create(cls, path: Path, names: Sequence[str]) -> ModelledState:
        """Make the file, with servers that are idle and may compute at their full pace."""
        rows = np.zeros(len(names), _ROW)
        rows["name"], rows["pace_ratio"] = [name.encode() for name in names], 1.0
        rows.tofile(path)
        return cls.open(path)

    @classmethod
    def open(cls, path: Path) -> ModelledState:
        """The state in a file that `create` has made."""
        rows = np.memmap(path, _ROW, "r+") if path.stat().st_size else np.zeros(0, _ROW)
        names = tuple(name.decode() for name in rows["name"])
        return cls(names, rows["pace_ratio"], rows["busy_ns"], rows["tokens"], rows["fault"])


LOOK_INTERVAL_NS = NS_PER_S // 2  # between two looks at the pace


@dataclass(frozen=True)
class Allowance:
    """What energy and heat leave of computers whose work is a wait; all others may work at their full pace.

    Args:
        state: shared with whoever governs energy.
        rows: of `state`, by satellite.
    """

    state: ModelledState | None = None
    rows: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, path: Path) -> Allowance:
        """That in a file of a shared state; without the file nothing limits them."""
        if not path.exists():
            return cls()
        state = ModelledState.open(path)
        return cls(state, {name: row for row, name in enumerate(state.names)})

    def work(self, satellite: str, work_ns: int, clock: Clock, stopped: threading.Event) -> bool:
        """Wait for as long as work takes that needs `work_ns` at full pace: whether it was stopped meanwhile.

        While the computer is off the work stands still; it is told to whoever governs energy as it is done.
        """
        begun_ns = clock.now_ns()
        if self.state is None or satellite not in self.rows:
            return clock.wait_until_ns(begun_ns + work_ns, stopped)
        row, left_ns = self.rows[satellite], float(work_ns)
        while left_ns > 0.5:
            pace = float(self.state.pace_ratio[row])
            end_ns = begun_ns + (min(round(left_ns / pace), LOOK_INTERVAL_NS) if pace > 0.0 else LOOK_INTERVAL_NS)
            if clock.wait_until_ns(end_ns, stopped):
                return True
            done_ns = min(left_ns, (end_ns - begun_ns) * pace)
            self.state.busy_ns[row] += round(done_ns)
            left_ns, begun_ns = left_ns - done_ns, end_ns
        return False


UNLIMITED = Allowance()
