"""The link plan: which links exist, when, and how good they are; the result that all later packages read.

A plan is sparse: it has one row for each link that is up at each instant, so its size follows what the sky does and
not instants x pairs. The rows of a long plan are not in memory but read in parts (see `rows`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import IntEnum
from functools import cached_property
from typing import Any

import numpy as np

from isl_emu.linkplan.events import Events, LinkState, events_of_rows, no_events
from isl_emu.linkplan.fault_events import FAULT_COLUMNS, TERM_NAMES, Faults, no_faults
from isl_emu.linkplan.rows import ROWS_AT_ONCE, ByLink, Column, Piece, pieces_by_link, pieces_of
from isl_emu.timebase import TimeGrid

__all__ = [
    "AQM",
    "AQM_NAMES",
    "MTU_BYTE",
    "Events",
    "LinkKind",
    "LinkPlan",
    "LinkState",
    "Links",
    "NodeKind",
    "Nodes",
    "QueueKind",
    "Snapshot",
]


class NodeKind(IntEnum):
    """What a node of the plan is."""

    SATELLITE = 0
    STATION = 1  # an end only
    GATEWAY = 2  # a station that forwards
    PLACE = 3  # on the ground, without antennas; it forwards


class LinkKind(IntEnum):
    """What a link of the plan is."""

    INTRA_PLANE = 0
    INTER_PLANE = 1
    GROUND = 2
    INTER_SHELL = 3
    TERRESTRIAL = 4


class QueueKind(IntEnum):
    """What keeps the queue at a link's end short, and how it is counted."""

    NONE = 0  # dropped at the tail, packets counted
    BFIFO = 1  # dropped at the tail, bytes counted
    CODEL = 2
    FQ_CODEL = 3
    CAKE = 4


AQM = np.dtype([("kind", "u1"), ("ecn", "?"), ("target_ns", "i8"), ("interval_ns", "i8")])
"""How the queues of a link are managed: QueueKind, and for the active ones what they aim at."""
AQM_NAMES = ("kind", "ecn", "target_ns", "interval_ns")
MTU_BYTE = 1500  # the longest packet of a link that says nothing else, as of Ethernet


@dataclass(frozen=True)
class Nodes:
    """The N nodes: satellites first, then stations, then other places on the ground."""

    names: tuple[str, ...]
    kind: np.ndarray  # uint8 (N,), NodeKind

    @property
    def forwards(self) -> np.ndarray:
        """Which nodes pass on what is for others; bool, shape (N,)."""
        forwards: np.ndarray = self.kind != NodeKind.STATION
        return forwards

    def index(self, name: str) -> int:
        """The index of the node called `name`; KeyError if there is none."""
        try:
            return self.names.index(name)
        except ValueError:
            raise KeyError(name) from None


@dataclass(frozen=True)
class Links:
    """The L links that are up at least once, ordered by (a, b)."""

    a: np.ndarray  # int32 (L,), node index of the first end; a < b, so for a ground link the satellite
    b: np.ndarray  # int32 (L,), node index of the second end; for a ground link the station
    kind: np.ndarray  # uint8 (L,), LinkKind
    queue_ns: np.ndarray  # int64 (L,), longest time that a packet waits at each end
    aqm: np.ndarray = field(default_factory=lambda: np.empty(0, AQM))  # AQM (L,); empty: QueueKind.NONE everywhere
    mtu_byte: np.ndarray = field(default_factory=lambda: np.empty(0, np.int32))  # int32 (L,); empty: 1500 everywhere

    def __post_init__(self) -> None:
        if not len(self.aqm):
            object.__setattr__(self, "aqm", np.zeros(len(self.a), AQM))
        if not len(self.mtu_byte):
            object.__setattr__(self, "mtu_byte", np.full(len(self.a), MTU_BYTE, np.int32))

    @property
    def laser(self) -> np.ndarray:
        """Which links are between satellites; bool, shape (L,)."""
        return ~np.isin(self.kind, (LinkKind.GROUND, LinkKind.TERRESTRIAL))


@dataclass(frozen=True)
class Snapshot:
    """The links that are up at one instant, U of them, ordered by link; all arrays shape (U,)."""

    link: np.ndarray  # int32, index into Links
    delay_ns: np.ndarray  # int64, one way
    rate_ab_bit_s: np.ndarray  # int64, from a to b
    rate_ba_bit_s: np.ndarray  # int64, from b to a
    loss_ratio: np.ndarray  # float64, of the packets sent in either direction
    corruption_ratio: np.ndarray  # float64, of those sent in either direction, with a bit that is flipped
    duplication_ratio: np.ndarray  # float64, of those sent in either direction
    jitter_ns: np.ndarray  # int64, how far a packet's delay may be from the link's, evenly spread


@dataclass(frozen=True)
class LinkPlan:
    """Every link's state at every instant, as it really is, faults and all.

    The rows of instant k are `row_start[k]:row_start[k + 1]`; a link without a row is down. Rates are the physical
    ones; `rate_scale` says what fraction of them the emulator shapes to. Where no losses are given there are none, and
    where no events are given every link tracks from the first instant of each contact.

    With faults (see `faults.with_faults`), `sky` is the plan without them, and `known` the one that routes follow.
    """

    grid: TimeGrid
    nodes: Nodes
    links: Links
    row_start: np.ndarray  # int64 (K+1,)
    row_link: Column  # int32 (R,)
    row_delay_ns: Column  # int64 (R,)
    row_rate_ab_bit_s: Column  # int64 (R,)
    row_rate_ba_bit_s: Column  # int64 (R,)
    rate_scale: float
    scenario_toml: str  # the resolved scenario that it was made from
    row_loss_ratio: Column = field(default_factory=lambda: np.empty(0))  # float64 (R,), either direction
    events: Events = field(default_factory=no_events)  # of all links; without any, those that the rows make
    row_corruption_ratio: Column = field(default_factory=lambda: np.empty(0))  # float64 (R,), either direction
    row_duplication_ratio: Column = field(default_factory=lambda: np.empty(0))  # float64 (R,), either direction
    row_jitter_ns: Column = field(default_factory=lambda: np.empty(0, np.int64))  # int64 (R,)
    faults: Faults = field(default_factory=no_faults)
    without_faults: LinkPlan | None = None  # if there are any
    as_known: LinkPlan | None = None  # if it is another than this

    def __post_init__(self) -> None:
        for name in ("row_loss_ratio", "row_corruption_ratio", "row_duplication_ratio", "row_jitter_ns"):
            if not len(getattr(self, name)):
                zero = np.zeros(1, getattr(self, name).dtype)
                object.__setattr__(self, name, np.broadcast_to(zero, len(self.row_link)))
        if not len(self.events.k):
            events = events_of_rows(self.row_start, self.row_link, self.links.kind == LinkKind.GROUND)
            object.__setattr__(self, "events", events)
        for column in (*self._columns(), *self._impairments()):
            if isinstance(column, np.ndarray):
                column.setflags(write=False)

    @property
    def sky(self) -> LinkPlan:
        """The plan as it would be without faults."""
        return self.without_faults or self

    @property
    def known(self) -> LinkPlan:
        """The plan as those know it who choose routes: without faults that they do not know, with those that they
        still believe in."""
        return self.as_known or self

    def snapshot(self, k: int) -> Snapshot:
        """The links up at instant `k` (views, no copies)."""
        return self.at_rows(slice(self.row_start[k], self.row_start[k + 1]))

    def at_rows(self, rows: slice | np.ndarray) -> Snapshot:
        """What some of the rows say, in their order; of a slice views, no copies."""
        rates = self.row_rate_ab_bit_s, self.row_rate_ba_bit_s
        terms = self.row_link, self.row_delay_ns, *rates, self.row_loss_ratio, *self._impairments()
        return Snapshot(*(term[rows] for term in terms))

    def pieces(self, at_once: int | None = None) -> Iterator[Piece]:
        """All instants in pieces, whose rows may be looked at together, or which have about so many rows."""
        return pieces_of(self.row_start, at_once)

    def pieces_by_link(self) -> Iterator[tuple[Piece, ByLink]]:
        """The same, with the rows of each piece by link."""
        return pieces_by_link(self.row_start, self.row_link, len(self.links.a))

    def rows_of_link(self, link: int) -> tuple[np.ndarray, Snapshot]:
        """At which instants a link is up, int64, and what it is like then."""
        found = [(piece, np.flatnonzero(self.row_link[piece.rows] == link)) for piece in self.pieces()]
        k = np.concatenate([piece.k[rows] for piece, rows in found])
        return k, self.at_rows(np.concatenate([rows + piece.rows.start for piece, rows in found]))

    def rows_of(self, k: int, links: Sequence[int] | np.ndarray) -> tuple[Snapshot, np.ndarray]:
        """What some links are like at instant `k`, in their order, and which of them a fault has cut, bool.

        A link that is cut is as it would be without faults.

        Raises:
            KeyError: a link would be down at that instant without faults too.
        """
        there, rows = self._found(k, np.asarray(links, dtype=np.int64))
        if there.all():
            return self.at_rows(rows), ~there
        known, else_rows = self.sky._found(k, np.asarray(links, dtype=np.int64))
        if not known.all():
            raise KeyError(int(np.asarray(links)[~known][0]))
        own, bare = vars(self.at_rows(rows)), vars(self.sky.at_rows(else_rows))
        return Snapshot(*(np.where(there, own[name], bare[name]) for name in own)), ~there

    def _found(self, k: int, links: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which links are up at instant `k`, and their rows; any row for those that are not."""
        first, last = self.row_start[k : k + 2].tolist()
        up = self.row_link[first:last]
        place = np.searchsorted(up, links).clip(max=max(len(up) - 1, 0))
        there = up[place] == links if len(up) else np.zeros(len(links), dtype=bool)
        return there, np.minimum(first + place, max(len(self.row_link) - 1, 0))

    def rows_over(self, k: np.ndarray, links: Sequence[int] | np.ndarray) -> tuple[Snapshot, np.ndarray]:
        """As `rows_of`, at n instants, int64 (n,), at once: all arrays have shape (n, H) for H links.

        Raises:
            KeyError: a link would be down at one of the instants without faults too.
        """
        wanted = np.asarray(links, dtype=np.int64)
        there, rows = self._found_over(k, wanted)
        if there.all():
            return self.at_rows(rows), ~there
        known, else_rows = self.sky._found_over(k, wanted)
        if not known.all():
            raise KeyError(int(wanted[~known.all(axis=0)][0]))
        bare = vars(self.sky.at_rows(else_rows))
        own = vars(self.at_rows(rows)) if len(self.row_link) else bare
        return Snapshot(*(np.where(there, own[name], bare[name]) for name in own)), ~there

    def _found_over(self, k: np.ndarray, links: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As `_found`, at all instants at once; shape (n, H) each."""
        there, rows = (np.zeros((len(k), len(links)), kind) for kind in (bool, np.int64))
        for piece in self.pieces():
            own = np.flatnonzero((k >= piece.first) & (k < piece.end))
            if len(own) and piece.rows.start < piece.rows.stop:
                there[own], found = _bisected(self.row_link[piece.rows], piece.row_start, k[own] - piece.first, links)
                rows[own] = found + piece.rows.start
        return there, rows

    def digest(self) -> str:
        """SHA-256 over the whole plan, hexadecimal; equal plans have equal digests."""
        return self._digest

    def with_digest(self, digest: str) -> LinkPlan:
        """This plan, whose digest is known without a look at its rows."""
        object.__setattr__(self, "_digest", digest)
        return self

    @cached_property
    def _digest(self) -> str:
        hasher = hashlib.sha256()
        grid = (self.grid.start.isoformat(), self.grid.step_ns, self.grid.count)
        hasher.update(repr((*grid, self.nodes.names, self.rate_scale, self.scenario_toml)).encode())
        for array in self._columns():
            _hash(hasher, array)
        if self.faults.names:
            hasher.update(repr((self.sky.digest(), self.faults.names, self.faults.effects)).encode())
            faults = (getattr(self.faults, name) for name in FAULT_COLUMNS)
            terms = (self.faults.terms[name] for name in TERM_NAMES)
            for array in (*self._impairments(), *faults, *terms):
                _hash(hasher, array)
        return hasher.hexdigest()

    def _impairments(self) -> tuple[Column, ...]:
        return self.row_corruption_ratio, self.row_duplication_ratio, self.row_jitter_ns

    def _columns(self) -> tuple[Column, ...]:
        links = self.links
        return (
            self.nodes.kind, links.a, links.b, links.kind, links.queue_ns, *(links.aqm[name] for name in AQM_NAMES),
            links.mtu_byte,
            self.row_start, self.row_link, self.row_delay_ns, self.row_rate_ab_bit_s, self.row_rate_ba_bit_s,
            self.row_loss_ratio, self.events.k, self.events.link, self.events.state,
        )  # fmt: skip


def _bisected(
    row_link: np.ndarray, row_start: np.ndarray, k: np.ndarray, links: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Which links are up at each of some instants, and their rows among those given; shape (n, H) each."""
    shape, last, start = (len(k), len(links)), len(row_link) - 1, row_start - row_start[0]
    low, end = (np.broadcast_to(start[at][:, np.newaxis], shape) for at in (k, k + 1))
    high = end
    for _ in range(int((end - low).max(initial=0)).bit_length()):
        middle = (low + high) // 2
        before = (low < high) & (row_link[np.minimum(middle, last)] < links)
        high = np.where(before, high, np.minimum(middle, high))
        low = np.where(before, middle + 1, low)
    rows = np.minimum(low, last)
    return (low < end) & (row_link[rows] == links), rows


def _hash(hasher: Any, column: Column) -> None:
    """Feed a column's plain bytes, little end first, piece by piece."""
    for first in range(0, len(column), ROWS_AT_ONCE):
        piece = column[first : first + ROWS_AT_ONCE]
        hasher.update(np.ascontiguousarray(piece, piece.dtype.newbyteorder("<")).view(np.uint8))


@dataclass(frozen=True)
class Rows:
    """Links up at instants, R of them in any order; all arrays have shape (R,)."""

    k: np.ndarray  # int64
    a: np.ndarray  # int64, node index
    b: np.ndarray  # int64, node index, b > a
    delay_ns: np.ndarray  # int64
    rate_ab_bit_s: np.ndarray  # int64
    rate_ba_bit_s: np.ndarray  # int64
    loss_ratio: np.ndarray  # float64

    def later(self, instants: int) -> Rows:
        """The same, so many instants later."""
        return replace(self, k=self.k + instants)


def either_loss_ratio(first: np.ndarray, second: np.ndarray | float) -> np.ndarray:
    """The share of packets that is lost where two things lose some, each on its own."""
    lost: np.ndarray = first + second - first * second
    return lost


def joined_rows(parts: Sequence[Rows]) -> Rows:
    """All rows of several records."""
    if len(parts) == 1:
        return parts[0]
    return Rows(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Rows)))
