"""What runs in nodes as faults see it: it can be killed, stopped and started again. Parts enter theirs into
`LiveRun.residents`."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Collection
from typing import BinaryIO

import numpy as np

from isl_emu.errors import WorkloadError

MOST_BITS_TOLD = 4
IN_ORDER, DEAD, STOPPED, GONE = range(4)  # states of a resident; the last: without power, so nobody hears of it


class Resident(ABC):
    """Something that runs in a node.

    Attributes:
        node: its name.
        what: it is, such as "model server".
        program: its name, if it is a program or workload of the user's.
        is_server: whether faults of servers hit it.
    """

    node: str
    what: str
    program: str | None = None
    is_server = False

    @abstractmethod
    def pids(self) -> Collection[int]:
        """Its processes in its node's container that run now; none if it has none, or is dead."""

    def hidden(self, state: int) -> None:  # noqa: B027  most have nothing there
        """Let what stands for it outside of its node's container be in this state, too."""

    @abstractmethod
    def start(self) -> str:
        """Start it again after it was killed, and return when it works: what became of it.

        Raises:
            WorkloadError: it does not start.
        """

    def flip(self, bits: int, buffer: str | None, rng: np.random.Generator) -> str:
        """Flip bits in its memory, chosen at random: what was done.

        Raises:
            WorkloadError: it has no such memory.
        """
        raise WorkloadError(
            f"{self.what} on {self.node}: bits are to be flipped, but it has no memory of its own for that; "
            "name a program with a buffer, or a server with a file of weights"
        )


def flip_bits(file: BinaryIO, begin_byte: int, end_byte: int, bits: int, rng: np.random.Generator) -> str:
    """Flip so many different bits between two places of a file, chosen at random: which, in a few words.

    Raises:
        WorkloadError: there are not so many.
    """
    if bits > 8 * (end_byte - begin_byte):
        raise WorkloadError(
            f"{file.name}: {bits} bits are to be flipped, but it has {8 * max(end_byte - begin_byte, 0)}; make it "
            "longer, or flip fewer"
        )
    places = np.sort(rng.choice(8 * (end_byte - begin_byte), bits, replace=False))
    for place in places.tolist():
        at, mask = begin_byte + place // 8, 1 << place % 8
        (byte,) = os.pread(file.fileno(), 1, at)
        os.pwrite(file.fileno(), bytes([byte ^ mask]), at)
    told = ", ".join(f"{begin_byte + place // 8}.{place % 8}" for place in places[:MOST_BITS_TOLD].tolist())
    more = f" and {bits - MOST_BITS_TOLD} more" if bits > MOST_BITS_TOLD else ""
    return f"{bits} bits flipped, at byte.bit {told}{more}"
