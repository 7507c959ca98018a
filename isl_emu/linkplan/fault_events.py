"""What faults do in a plan, as a record: each stretch of time in which something is out of order.

Whoever has the record knows all of them; `known` says what those who choose routes and servers know at an instant.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import IntEnum

import numpy as np

from isl_emu.arrays import Bools, Ints


class FaultThing(IntEnum):
    """What a fault event hits, and what its target is an index of."""

    LINK = 0  # of the plan's links
    NODE = 1  # of the plan's nodes: all its links, and with "power-off" all that runs there
    SERVER = 2  # of the plan's nodes: the model server there
    PROGRAM = 3  # of the scenario's programs, then workloads


TERMS = np.dtype(
    [
        ("cut", "?"),  # no link that is hit carries data
        ("loss_ratio", "f8"),
        ("corruption_ratio", "f8"),
        ("duplication_ratio", "f8"),
        ("jitter_ns", "i8"),
        ("rate_factor", "f8"),
        ("delay_factor", "f8"),
    ]
)
"""What a fault does to links, in either direction."""
TERM_NAMES = TERMS.names or ()
FAULT_COLUMNS = ("fault", "thing", "target", "k_from", "k_until", "k_known", "k_forgotten")  # of `Faults`, shape (E,)


@dataclass(frozen=True)
class KnownDead:
    """When which nodes are known to carry nothing: in any order, from an instant until before another; shape (D,)."""

    node: Ints
    k_from: Ints
    k_until: Ints

    def at(self, node: Ints, k: Ints) -> Bools:
        """Whether each of some nodes is known to be dead at its instant; bool (V,)."""
        after = 1 + int(max(k.max(initial=0), self.k_until.max(initial=0)))
        order = np.lexsort((self.k_from, self.node))
        begins, ends = ((self.node.astype(np.int64) * after + one)[order] for one in (self.k_from, self.k_until))
        moment = node * np.int64(after) + k
        latest = np.searchsorted(begins, moment, side="right")
        dead: Bools = moment < np.append(-1, np.maximum.accumulate(ends))[latest]
        return dead


@dataclass(frozen=True)
class Faults:
    """The F faults of a scenario and their E events, ordered by (fault, k_from, thing, target).

    An event holds from instant `k_from` until before `k_until`; with "power-off" until its node has booted. It is
    known from `k_known` until before `k_forgotten`; one that nobody learns of has both equal. All are at most K.
    """

    names: tuple[str, ...]  # of each fault
    effects: tuple[str, ...]  # of each fault, as in the scenario
    terms: np.ndarray  # TERMS (F,)
    fault: np.ndarray  # int32 (E,), as are the following
    thing: np.ndarray  # uint8, FaultThing
    target: np.ndarray  # int32
    k_from: np.ndarray  # int64
    k_until: np.ndarray  # int64
    k_known: np.ndarray  # int64
    k_forgotten: np.ndarray  # int64

    def __post_init__(self) -> None:
        for field in fields(self):
            if isinstance(array := getattr(self, field.name), np.ndarray):
                array.setflags(write=False)

    @property
    def all_known_at_once(self) -> bool:
        """Whether everybody knows at any instant what is out of order."""
        return bool((self.k_known == self.k_from).all() and (self.k_forgotten == self.k_until).all())

    def happening(self, k: int) -> Bools:
        """Which events hold at instant `k`, shape (E,)."""
        return (self.k_from <= k) & (k < self.k_until)

    def known(self, k: int) -> Bools:
        """Which events are known at instant `k`, shape (E,): some do not hold yet, or no longer."""
        return (self.k_known <= k) & (k < self.k_forgotten)

    def known_dead(self, satellites: int) -> KnownDead:
        """When which of the first nodes are known to carry nothing."""
        own = (self.thing == FaultThing.NODE) & (self.target < satellites) & (self.k_known < self.k_forgotten)
        own &= self.terms["cut"][self.fault]
        return KnownDead(self.target[own], self.k_known[own], self.k_forgotten[own])

    def nodes_known_down(self, k: int) -> np.ndarray:
        """The nodes that are known at instant `k` to be without power, or still to boot; ascending, int32."""
        off = np.array([effect == "power-off" for effect in self.effects], dtype=bool)
        down = self.known(k) & (self.thing == FaultThing.NODE) & off[self.fault]
        return np.unique(self.target[down])


def no_faults() -> Faults:
    """None at all."""
    small, index, instant = np.empty(0, np.uint8), np.empty(0, np.int32), np.empty(0, np.int64)
    return Faults((), (), np.empty(0, TERMS), index, small, index, instant, instant, instant, instant)
