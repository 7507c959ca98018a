"""The rows of a plan while it is made: chunk of instants after chunk, then those that were known last between them."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np

from isl_emu.linkplan.candidates import pair_keys
from isl_emu.linkplan.plan import Rows, joined_rows
from isl_emu.linkplan.rows import Empty

TERMS = {"delay_ns": np.int64, "rate_ab_bit_s": np.int64, "rate_ba_bit_s": np.int64, "loss_ratio": np.float64}
ROW = np.dtype([("pair", np.int64), *TERMS.items()])


class GatheredRows:
    """Rows of K instants, each chunk in order and in as few bytes as may be.

    Args:
        instants: K.
        empty: makes long arrays.
    """

    def __init__(self, instants: int, empty: Empty):
        self._instants, self._empty = instants, empty
        self._chunks: deque[tuple[int, np.ndarray, np.ndarray]] = deque()  # its first instant, rows at each, rows
        self._late: list[tuple[np.ndarray, np.ndarray]] = []  # instants, rows
        self._pairs = np.empty(0, np.int64)

    def add(self, parts: Sequence[Rows], first: int, count: int) -> None:
        """Keep the rows of the next `count` instants, which begin with instant `first`."""
        k, rows = _ordered(parts)
        kept = self._empty(len(rows), ROW)
        kept[:] = rows
        self._chunks.append((first, np.bincount(k - first, minlength=count), kept))
        self._pairs = np.union1d(self._pairs, rows["pair"])

    def add_late(self, rows: Rows) -> None:
        """Keep rows of any instants, which were not known when theirs were added."""
        k, ordered = _ordered([rows])
        kept_k, kept = self._empty(len(k), np.int32), self._empty(len(k), ROW)
        kept_k[:], kept[:] = k, ordered
        self._late.append((kept_k, kept))
        self._pairs = np.union1d(self._pairs, ordered["pair"])

    def columns(self) -> tuple[np.ndarray, dict[str, Any]]:
        """All that was kept, which nobody keeps then.

        Returns:
            The pairs that have rows (from `pair_keys`), ascending, (L,), and the plan's columns by name.
        """
        counts, instants = np.zeros(self._instants, np.int64), np.arange(self._instants + 1, dtype=np.int32)
        starts = [np.searchsorted(k, instants) for k, _ in self._late]
        for start in starts:
            counts += np.diff(start)
        for first, of_each, _ in self._chunks:
            counts[first : first + len(of_each)] += of_each
        row_start = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        link = self._empty(int(row_start[-1]), np.int32)
        terms = {name: self._empty(len(link), kind) for name, kind in TERMS.items()}
        while self._chunks:
            first, of_each, rows = self._chunks.popleft()
            end = first + len(of_each)
            between = [slice(*start[[first, end]]) for start in starts]
            late = [(k[own], late[own]) for (k, late), own in zip(self._late, between, strict=True)]
            k = np.concatenate([np.repeat(np.arange(first, end), of_each), *(k for k, _ in late)])
            rows = np.concatenate([rows, *(rows for _, rows in late)])
            rows = rows[np.lexsort((rows["pair"], k))]
            place = slice(*row_start[[first, end]])
            link[place] = np.searchsorted(self._pairs, rows["pair"])
            for name, column in terms.items():
                column[place] = rows[name]
        self._late.clear()
        columns = {"row_start": row_start, "row_link": link, **{f"row_{name}": terms[name] for name in TERMS}}
        return self._pairs, columns


def _ordered(parts: Sequence[Rows]) -> tuple[np.ndarray, np.ndarray]:
    """The instants of rows and the rows themselves, ordered by instant and pair."""
    if not parts:
        return np.empty(0, np.int64), np.empty(0, ROW)
    rows = joined_rows(parts)
    pair = pair_keys(rows.a, rows.b)
    order = np.lexsort((pair, rows.k))
    found = np.empty(len(order), ROW)
    found["pair"] = pair[order]
    for name in TERMS:
        found[name] = getattr(rows, name)[order]
    return rows.k[order], found
