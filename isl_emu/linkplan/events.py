"""What becomes of each link, as changes of its state: the sparse side of a plan.

Every link is idle before instant 0. A plan's events, applied in order, say at each instant which links are tracking,
and those are exactly the links that have a row.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import IntEnum

import numpy as np

from isl_emu.linkplan.rows import NEVER, Column, pieces_by_link


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
    row_start: np.ndarray, row_link: Column, is_ground: np.ndarray, which: np.ndarray | None = None
) -> Events:
    """The events of links that track from the first instant of each contact: nothing slews, nothing is acquired.

    Args:
        row_start: of a plan, shape (K+1,).
        row_link: of a plan, shape (R,).
        is_ground: which links lead to a station, shape (L,); these are idle between contacts, lasers are lost.
        which: links that are asked for, bool, shape (L,); all if not given.
    """
    begun, ended, last_k = [], [], np.full(len(is_ground), NEVER)
    for _, rows in pieces_by_link(row_start, row_link, len(is_ground)):
        begins = rows.begins
        begun.append((rows.k[begins], rows.link[begins]))
        ended.append((rows.before_k[begins] + 1, rows.link[begins]))
        last_k[rows.link[rows.last]] = rows.k[rows.last]
    ended.append((last_k + 1, np.arange(len(is_ground))))
    (k, link), (end_k, ended_link) = (map(np.concatenate, zip(*parts, strict=True)) for parts in (begun, ended))
    really = (end_k > 0) & (end_k < len(row_start) - 1)
    end_k, ended_link = end_k[really], ended_link[really]
    after = np.where(is_ground[ended_link], LinkState.IDLE, LinkState.LOST)
    states = np.concatenate([np.full(len(k), LinkState.TRACKING), after])
    k, link = np.concatenate([k, end_k]), np.concatenate([link, ended_link])
    asked = slice(None) if which is None else which[link]
    return ordered_events(k[asked], link[asked], states[asked])


def ordered_events(k: np.ndarray, link: np.ndarray, state: np.ndarray) -> Events:
    """Events in any order, as a record."""
    order = np.lexsort((link, k))
    return Events(k[order].astype(np.int64), link[order].astype(np.int32), state[order].astype(np.uint8))
