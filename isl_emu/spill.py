"""Room for long arrays: in memory up to a limit, beyond it in temporary files that nobody sees and that end with them.

What is in files costs memory only while it is looked at, and the kernel takes that back when others want it.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from typing import Any

import numpy as np
import numpy.typing as npt

from isl_emu.errors import MachineError

HELD_BYTE = 1 << 30  # in memory; a plan of some 14 million rows while it is made
SEGMENT_BYTE = 1 << 28  # of a file at least: each costs a descriptor


class Spill:
    """Makes arrays, as `numpy.empty` does.

    Args:
        held_byte: how much of them is in memory at the most.
    """

    def __init__(self, held_byte: int = HELD_BYTE):
        self._left_byte = held_byte
        self._segment = np.empty(0, np.uint8)

    def empty(self, count: int, dtype: npt.DTypeLike) -> np.ndarray[Any, Any]:
        """An array of shape (count,) that may hold anything.

        Raises:
            MachineError: there is no room in the folder for temporary files.
        """
        kind = np.dtype(dtype)
        size = -(-count * kind.itemsize // 64) * 64  # arrays begin at a processor's line, so at any number
        if size <= self._left_byte:
            self._left_byte -= size
            return np.empty(count, kind)
        if size > len(self._segment):
            self._segment = _in_a_file(max(size, SEGMENT_BYTE))
        found, self._segment = self._segment[: count * kind.itemsize], self._segment[size:]
        return found.view(kind)


def _in_a_file(size: int) -> np.ndarray[Any, Any]:
    folder = tempfile.gettempdir()
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            os.posix_fallocate(file.fileno(), 0, size)  # else a full disk would kill us when it is written to
            return np.frombuffer(mmap.mmap(file.fileno(), size), np.uint8)
    except OSError as error:
        raise MachineError(
            f"{folder}: has no room for {size / 1e9:.1f} GB ({error.strerror}), but a plan that is longer than memory "
            "should hold is kept there; set TMPDIR to a folder with more, or plan a shorter time"
        ) from error
