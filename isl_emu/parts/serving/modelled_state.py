"""What modelled servers share with the rest of a run: how fast each may be, and how much each has done.

One array in a memory-mapped file, a row for each modelled satellite: whoever governs energy writes a pace, the servers
write what they did, and both read the other's column at no cost. Each value is one aligned machine word, so a reader
sees the old one or the new one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

FILE = "modelled_state"  # in the journal folder
_ROW = np.dtype([("name", "S64"), ("pace_ratio", "f8"), ("busy_ns", "i8"), ("tokens", "i8")])


@dataclass(frozen=True)
class ModelledState:
    """The shared state of S modelled satellites; the arrays are views of the file, so what is written is seen by all.

    Args:
        names: node names, in the order of the rows.
        pace_ratio: float64 (S,), 0 to 1: share of its full pace at which a server computes; 0 stops it.
        busy_ns: int64 (S,), emulated time that it has spent on prompts and answers.
        tokens: int64 (S,), tokens that it has answered.
    """

    names: tuple[str, ...]
    pace_ratio: np.ndarray
    busy_ns: np.ndarray
    tokens: np.ndarray

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
        return cls(names, rows["pace_ratio"], rows["busy_ns"], rows["tokens"])
