"""The rows of a plan, where they need not all be in memory: columns that are read in parts, and parts to read them in.

A plan's rows are ordered by instant and link. What needs them by link takes some whole instants at a time, orders the
rows of these alone, and carries from one piece to the next what it knows of each link. So memory follows the number of
links, and not how long the plan is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from isl_emu.arrays import Ints

ROWS_AT_ONCE = 4_000_000  # that are looked at together: 200 MB with what is derived
ROWS_HELD = 16_000_000  # of a plan that is read whole: 600 MB
NEVER = -2  # the instant before an instant that none comes after


Empty = Callable[[int, Any], np.ndarray]
"""As `numpy.empty`: an array of so many elements of a type."""


class Column(Protocol):
    """One column of R rows, of which a part becomes an array when it is asked for; numpy arrays are columns."""

    @property
    def dtype(self) -> np.dtype[Any]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice | np.ndarray, /) -> np.ndarray: ...


@dataclass(frozen=True)
class BlockedColumn:
    """A column whose rows come in blocks, each when it is needed.

    Args:
        block_start: where each of B blocks begins, then how many rows there are; int64 (B+1,).
        dtype: of the column.
        fetch: the rows of a block, given its number.
    """

    block_start: np.ndarray
    dtype: np.dtype[Any]
    fetch: Callable[[int], np.ndarray]

    def __len__(self) -> int:
        return int(self.block_start[-1])

    def __getitem__(self, rows: slice | np.ndarray, /) -> np.ndarray:
        if isinstance(rows, slice):
            first, end, _ = rows.indices(len(self))
            parts = [self.fetch(block)[begin:until] for block, begin, until in self._blocks(first, end)]
            return parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, self.dtype), *parts])
        found = np.empty(rows.shape, self.dtype)
        block_of = np.searchsorted(self.block_start, rows, side="right") - 1
        for block in np.unique(block_of).tolist():
            own = block_of == block
            found[own] = self.fetch(block)[rows[own] - self.block_start[block]]
        return found

    def _blocks(self, first: int, end: int) -> Iterator[tuple[int, int, int]]:
        """The blocks that some rows are in, and from where until where in each."""
        if first >= end:
            return
        number, last = np.searchsorted(self.block_start, (first, end - 1), side="right") - 1
        for block in range(number, last + 1):
            begin = int(self.block_start[block])
            yield block, max(first - begin, 0), min(end, int(self.block_start[block + 1])) - begin


@dataclass(frozen=True)
class Piece:
    """Some whole instants of a plan, from `first` until before `end`."""

    first: int
    end: int
    row_start: np.ndarray  # of these instants, and where the last one's rows end

    @property
    def rows(self) -> slice:
        """Their rows."""
        return slice(int(self.row_start[0]), int(self.row_start[-1]))

    @property
    def k(self) -> Ints:
        """The instant of each row."""
        return np.repeat(np.arange(self.first, self.end), np.diff(self.row_start))


def pieces_of(row_start: np.ndarray, at_once: int | None = None) -> Iterator[Piece]:
    """All instants of a plan in pieces; one piece where there are few rows.

    Args:
        row_start: of the plan, shape (K+1,).
        at_once: about how many rows are in a piece; `ROWS_AT_ONCE` if not given.
    """
    bounds = np.searchsorted(row_start, np.arange(0, max(int(row_start[-1]), 1), at_once or ROWS_AT_ONCE))
    edges = np.unique([*bounds, len(row_start) - 1]).tolist()
    for first, end in zip(edges, edges[1:], strict=False):
        yield Piece(first, end, row_start[first : end + 1])


def by_link(link: np.ndarray, links: int) -> Ints:
    """In what order some rows are ordered by link, and of each link as they were.

    Args:
        link: of each row.
        links: how many the plan has.
    """
    narrow = link.astype(np.uint16) if links <= 1 << 16 else link  # which numpy sorts by digits, in a third of the time
    order: Ints = np.argsort(narrow, kind="stable")
    return order


@dataclass(frozen=True)
class ByLink:
    """The rows of a piece ordered by link, then instant; arrays have the shape (P,)."""

    order: Ints  # of the piece's rows
    link: Ints
    k: Ints
    before_k: Ints  # at which the link was up last; NEVER where it was not
    last: Ints  # of each link that has any: where its last one is

    @property
    def begins(self) -> np.ndarray:
        """Which of them begin a contact; bool."""
        begins: np.ndarray = self.before_k != self.k - 1
        return begins


def pieces_by_link(row_start: np.ndarray, row_link: Column, links: int) -> Iterator[tuple[Piece, ByLink]]:
    """All rows of a plan, piece by piece in time, in each by link."""
    last_k = np.full(links, NEVER)
    for piece in pieces_of(row_start):
        order = by_link(row_link[piece.rows], links)
        link, k = row_link[piece.rows][order], piece.k[order]
        first = np.flatnonzero(np.diff(link, prepend=-1))
        before_k = np.concatenate([[NEVER], k[:-1]]) if len(k) else k
        before_k[first] = last_k[link[first]]
        last = np.append(first[1:], len(k)) - 1 if len(k) else first
        yield piece, ByLink(order, link, k, before_k, last)
        last_k[link[last]] = k[last]
