"""What the programs in nodes need in a run: containers, and a guest around them, are sized by it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Need:
    """What one of a node's programs needs; a node may have several, such as to serve a model and to get it.

    Args:
        cpus: share of one core, at the scenario's own pace; 0 if it shares what there is for the node's other programs.
            Where all of them do, they have a whole core.
        memory_byte: the most that it may take.
        expected_byte: the most that it is expected to take, without the files in `visible`; a guest has room for that.
        visible: files and folders that it reads; files are in memory once for all.
    """

    node: str
    cpus: float
    memory_byte: int
    expected_byte: int
    visible: tuple[Path, ...] = ()
