"""What becomes of each link, as changes of its state: the sparse side of a plan.

Every link is idle before instant 0. A plan's events, applied in order, say at each instant which links are tracking,
and those are exactly the links that have a row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from enum import IntEnum

import numpy as np

ROWS_AT_ONCE = 4_000_000  # that are put in another order together: 100 MB with what is derived


class LinkState(IntEnum):
    """Pointing, acquisition and tracking (PAT) of a link's two ends; only a link that is tracking carries data."""

    IDLE = 0  # no terminal points along it
    SLEWING = 1  # the terminals turn to it
    ACQUIRING = 2  # they search for each other
    TRACKING = 3
    LOST = 4  # it was pointed at and is still assigned, but a constraint or an outage keeps it from tracking
    FAULT = 5  # it would track, but a fault has cut it


@dataclass(frozen=True)
class Events:
    """E changes of state, ordered by (k, link), at most one of a link at an instant; all arrays have shape (E,)."""

    k: np.ndarray  # int64, instant from which the state holds
    link: np.ndarray  # int32, index into the plan's links
    state: np.ndarray  # uint8, LinkState

    def __post_init__(self) -> None:
        for field in fields(self):
            getattr(self, field.name).setflags(write=False)

    def states(self, k: int, links: int) -> np.ndarray:
        """The state of each of the plan's L links at instant `k`, LinkState, uint8, shape (L,)."""
        states = np.full(links, LinkState.IDLE, dtype=np.uint8)
        before = np.searchsorted(self.k, k, side="right")
        states[self.link[:before]] = self.state[:before]  # of several for one link, numpy keeps the last
        return states


def no_events() -> Events:
    """None at all."""
    none = np.empty(0, dtype=np.int64)
    return ordered_events(none, none, none)


def events_of_rows(
    row_start: np.ndarray, row_link: np.ndarray, is_ground: np.ndarray, which: np.ndarray | None = None
) -> Events:
    """The events of links that track from the first instant of each contact: nothing slews, nothing is acquired.

    Args:
        row_start: of a plan, shape (K+1,).
        row_link: of a plan, shape (R,).
        is_ground: which links lead to a station, shape (L,); these are idle between contacts, lasers are lost.
        which: links that are asked for, bool, shape (L,); all if not given.
    """
    instants, ks, links, states = len(row_start) - 1, [], [], []
    for order in blocks_by_link(row_link, len(is_ground)):
        rows = order if which is None else order[which[row_link[order]]]
        k, link = instants_of(row_start, rows), row_link[rows]
        first = np.ones(len(k), dtype=bool)
        first[1:] = (link[1:] != link[:-1]) | (k[1:] != k[:-1] + 1)
        last = np.roll(first, -1) & (k + 1 < instants)
        after = np.where(is_ground[link[last]], LinkState.IDLE, LinkState.LOST)
        ks += [k[first], k[last] + 1]
        links += [link[first], link[last]]
        states += [np.full(first.sum(), LinkState.TRACKING), after]
    return ordered_events(np.concatenate(ks), np.concatenate(links), np.concatenate(states))


def blocks_by_link(row_link: np.ndarray, links: int) -> Iterator[np.ndarray]:
    """The rows of a plan ordered by link, then instant, some whole links at a time: indices of rows, int64.

    Args:
        row_link: of a plan, shape (R,).
        links: how many it has.
    """
    pieces = range(0, len(row_link), ROWS_AT_ONCE)
    if len(pieces) <= 1:
        yield np.argsort(row_link, kind="stable")  # the rows are in order of time already
        return
    counts = sum(np.bincount(row_link[at : at + ROWS_AT_ONCE], minlength=links) for at in pieces)
    block = np.cumsum(counts) // ROWS_AT_ONCE
    for number in np.unique(block):
        first, last = np.searchsorted(block, (number, number + 1))
        found = [
            np.flatnonzero((piece >= first) & (piece < last)) + at
            for at in pieces
            for piece in (row_link[at : at + ROWS_AT_ONCE],)
        ]
        rows = np.concatenate(found)
        yield rows[np.argsort(row_link[rows], kind="stable")]


def instants_of(row_start: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The instants of rows of a plan, given their indices; int64."""
    k: np.ndarray = np.searchsorted(row_start, rows, side="right") - 1
    return k


def ordered_events(k: np.ndarray, link: np.ndarray, state: np.ndarray) -> Events:
    """Events in any order, as a record."""
    order = np.lexsort((link, k))
    return Events(k[order].astype(np.int64), link[order].astype(np.int32), state[order].astype(np.uint8))
