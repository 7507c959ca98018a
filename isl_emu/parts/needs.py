"""What the programs on satellites need in a run: containers, and a guest around them, are sized by it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Need:
    """What one of a satellite's programs needs; a satellite may have several, such as to serve a model and to get it.

    Args:
        cpus: share of one core, at the scenario's own pace.
        memory_byte: the most that it may take.
        expected_byte: the most that it is expected to take, without the files in `visible`; a guest has room for that.
        visible: files and folders that it reads; in memory once for all.
    """

    satellite: str
    cpus: float
    memory_byte: int
    expected_byte: int
    visible: tuple[Path, ...] = ()
