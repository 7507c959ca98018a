"""Which nodes of a plan are on this kernel: all of them, or one part of a run that several guests share."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from isl_emu.files import read_json
from isl_emu.runs.folder import RunFolder

FILE = "cut.json"  # in a run folder: the cut, the part of each node in it; none where one kernel has them all


@dataclass(frozen=True, eq=False)
class Portion:
    """One part of a network.

    Args:
        number: of the part that is here.
        part: of each node, int32 (N,).
    """

    number: int
    part: np.ndarray

    @classmethod
    def whole(cls, nodes: int) -> Portion:
        """All nodes here."""
        return cls(0, np.zeros(nodes, np.int32))

    @classmethod
    def read(cls, folder: Path, number: int, nodes: int) -> Portion:
        """A part of the run in a folder, or the whole of one that was not cut."""
        found = read_json(folder / FILE)
        return cls.whole(nodes) if found is None else cls(number, np.array(found["part"], np.int32))

    @cached_property
    def here(self) -> np.ndarray:
        """Whether each node is here; bool (N,)."""
        here: np.ndarray = self.part == self.number
        return here

    @cached_property
    def nodes(self) -> list[int]:
        """The nodes that are here, rising."""
        nodes: list[int] = np.flatnonzero(self.here).tolist()
        return nodes

    @property
    def count(self) -> int:
        """How many parts there are."""
        return int(self.part.max()) + 1 if len(self.part) else 1


def journals_here(folder: RunFolder, portion: Portion) -> list[Path]:
    """The journals of all guests of a run, its first part's first, that are on this machine."""
    parts = (RunFolder(folder.path, number).journal for number in range(portion.count))
    return [journal for journal in parts if journal.is_dir()] or [folder.journal]
