"""What terminals do in a chunk of instants: the links that each pairing has in its pool, and the instants.

`acquisition` follows these from instant to instant.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np

from isl_emu.arrays import Bools, Floats, unit
from isl_emu.geometry.pointing import local_direction
from isl_emu.linkplan.candidates import LaserCandidates, pair_keys
from isl_emu.linkplan.constraints import Ephemeris
from isl_emu.linkplan.events import LinkState
from isl_emu.linkplan.lasers import Prospects
from isl_emu.linkplan.terminals import NONE

NOT_ENGAGED = -1


@dataclass
class Pool:
    """The C candidates of a pairing at the moment, and what their ends do; arrays have shape (C,) but where it says
    otherwise.

    Those of a nearest pairing are the links that it has pointed at in a chunk, whether or not they are engaged still.
    """

    ends: np.ndarray  # int64 (C, 2), node indices
    state: np.ndarray  # uint8, LinkState
    terminals: np.ndarray  # int64 (C, 2), NONE while not engaged
    slewed_ns: np.ndarray  # int64, when the slew ends
    acquired_ns: np.ndarray  # int64, when the acquisition ends
    lost_i: np.ndarray  # int64, the instant of the chunk at which an engaged link is lost, K if after it; NOT_ENGAGED
    possible: np.ndarray  # bool (C, K), as of `Prospects`
    lasting: np.ndarray  # bool (C, K)
    distance_km: np.ndarray  # float64 (C, K)
    tracked: np.ndarray  # bool (C, K), when it was tracking in the chunk so far

    @property
    def engaged(self) -> Bools:
        """Whether terminals are assigned."""
        engaged: Bools = self.terminals[:, 0] != NONE
        return engaged

    def keys(self, which: np.ndarray | slice = slice(None)) -> np.ndarray:
        return pair_keys(*self.ends[which].T)

    def only(self, which: np.ndarray) -> Pool:
        return Pool(*(getattr(self, one.name)[which] for one in fields(Pool)))

    def joined(self, other: Pool) -> Pool:
        """These candidates and then others."""
        return Pool(*(np.concatenate([getattr(pool, one.name) for pool in (self, other)]) for one in fields(Pool)))

    def begin(self, prospects: Prospects) -> None:
        """Take up another chunk of instants."""
        self.possible, self.lasting = prospects.possible.T, prospects.lasting.T
        self.distance_km = prospects.distance_km.T
        self.tracked = np.zeros_like(self.possible)


@dataclass(frozen=True)
class Ahead:
    """What the sky alone says of K instants: the satellites' local orbital frames, and of each pairing whose candidates
    never change what the instants have for them."""

    axes: np.ndarray  # (K, N, 3, 3)
    prospects: list[Prospects | None]


@dataclass(frozen=True)
class Chunk:
    """K instants that are worked on together."""

    sky: Ephemeris
    axes: np.ndarray  # (K, N, 3, 3), the satellites' local orbital frames
    first: int  # the number of the first of them

    def directions(self, at: int | slice, own: np.ndarray, other: np.ndarray) -> Floats:
        """Where satellites see others at an instant or some, in their local frames, shape (..., 3)."""
        r_km = self.sky.r_km[at]
        sight = unit(r_km[..., other, :] - r_km[..., own, :])
        return local_direction(self.axes[at][..., own, :, :], sight)


@dataclass(frozen=True)
class Moment:
    """One instant of a chunk."""

    chunk: Chunk
    i: int

    @property
    def k(self) -> int:
        return self.chunk.first + self.i

    @property
    def t_ns(self) -> int:
        return int(self.chunk.sky.t_ns[self.i])

    @cached_property
    def sky(self) -> Ephemeris:
        """Of this instant alone."""
        return self.chunk.sky.at(self.i)


def idle_pool(lasers: LaserCandidates) -> Pool:
    """A pool of candidates that nobody points at, at no instant yet."""
    count = len(lasers.a)
    never, unknown_km = np.zeros((count, 0), dtype=bool), np.empty((count, 0))
    return Pool(
        ends=np.stack([lasers.a, lasers.b], axis=1).astype(np.int64),
        state=np.full(count, LinkState.IDLE, dtype=np.uint8),
        terminals=np.full((count, 2), NONE, dtype=np.int64),
        slewed_ns=np.zeros(count, dtype=np.int64),
        acquired_ns=np.zeros(count, dtype=np.int64),
        lost_i=np.full(count, NOT_ENGAGED, dtype=np.int64),
        possible=never, lasting=never, distance_km=unknown_km, tracked=never,
    )  # fmt: skip
