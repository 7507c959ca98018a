"""What kernels tell of their objects, by column: all messages of many dumps at once, with numpy.

A message is a fixed part and attributes, each with its length and kind, of which some hold attributes again. Taken one
after another in Python that is ten microseconds an object. Here all messages take their first attribute at once, then
their second, and so on: as many steps as one message has attributes. Nothing is supposed of the layout, so whatever a
kernel leaves out, adds or puts elsewhere is found as if read one by one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt

from isl_emu.arrays import Bools, Ints
from isl_emu.errors import NetworkError
from isl_emu.nodes.netlink import ATTRIBUTE, NLA_TYPE_MASK


@dataclass(frozen=True)
class Pieces:
    """Pieces of what was received: messages without their headers, or what an attribute of each holds.

    Args:
        data: all that was received; uint8, (B,).
        start: where each piece begins; int64, (C,).
        stop: where it ends; int64, (C,). Not after its beginning where there is none.
    """

    data: np.ndarray
    start: Ints
    stop: Ints

    def __len__(self) -> int:
        return len(self.start)

    def __getitem__(self, which: np.ndarray) -> Pieces:
        return Pieces(self.data, self.start[which], self.stop[which])

    def attributes(self, *kinds: int, skip: int = 0) -> tuple[Pieces, ...]:
        """What each piece's attributes of some kinds hold, (C,) of each kind; of several of a kind the last.

        Args:
            skip: how many bytes are before the first attribute.
        """
        start, stop = np.zeros((2, len(kinds) + 1, len(self)), np.int64)  # the last row is of all other kinds
        column = np.full(NLA_TYPE_MASK + 1, len(kinds), np.int8)
        column[list(kinds)] = np.arange(len(kinds))
        for row, kind, begin, end in self._walk(skip):
            to = column[kind & NLA_TYPE_MASK]
            start[to, row], stop[to, row] = begin, end
        return tuple(Pieces(self.data, *bounds) for bounds in zip(start[:-1], stop[:-1], strict=True))

    def parts(self) -> tuple[Ints, Pieces]:
        """What all attributes of all pieces hold, whatever their kinds, and of which piece each is; (D,)."""
        found = [(row, begin, end) for row, _, begin, end in self._walk(0)]
        none = np.empty(0, np.int64)
        row, start, stop = map(np.concatenate, zip((none, none, none), *found, strict=True))
        return row, Pieces(self.data, start, stop)

    def values(self, form: npt.DTypeLike, at: int = 0, otherwise: np.ndarray | int | None = None) -> np.ndarray:
        """What each piece holds as a number or record; of the type `form`, (C,).

        Args:
            form: of numpy.
            at: how many bytes are before it.
            otherwise: the value where a piece ends before it.

        Raises:
            NetworkError: a piece ends before it, and there is no `otherwise`.
        """
        size, where = np.dtype(form).itemsize, self.start + at
        fits = where + size <= self.stop
        if otherwise is None and not fits.all():
            raise NetworkError(
                f"netlink: a kernel's answer lacks {size} bytes at {at} in {int((~fits).sum())} of {len(fits)} places, "
                "but they must be there; run isl-emu doctor"
            )
        found: np.ndarray = np.empty(len(self), form)
        if otherwise is not None:
            found[:] = otherwise
        found[fits] = _overlapping(self.data, form)[where[fits]]
        return found

    def are(self, text: bytes) -> Bools:
        """Which pieces are exactly this text; (C,)."""
        as_long = np.flatnonzero(self.stop - self.start == len(text))
        at = self.start[as_long, np.newaxis] + np.arange(len(text))
        same = np.zeros(len(self), bool)
        same[as_long] = (self.data[at] == np.frombuffer(text, np.uint8)).all(axis=1)
        return same

    def not_zero(self) -> Bools:
        """Which pieces hold anything but zeros; (C,)."""
        at = self.start[:, np.newaxis] + np.arange((self.stop - self.start).max(initial=0))
        inside = at < self.stop[:, np.newaxis]
        found = np.zeros(at.shape, bool)
        found[inside] = self.data[at[inside]] != 0
        return np.asarray(found.any(axis=1))

    def text(self, number: int) -> bytes:
        """One piece."""
        return self.data[self.start[number] : self.stop[number]].tobytes()

    def _walk(self, skip: int) -> Iterator[tuple[Ints, np.ndarray, Ints, Ints]]:
        """The first attribute of each piece, then the second: of which pieces, their kinds, and where they lie."""
        row, at = np.arange(len(self)), self.start + skip
        lengths, kinds = _overlapping(self.data, "u2"), _overlapping(self.data, "u2")[2:]
        while len(row):
            whole = at + ATTRIBUTE.size <= self.stop[row]
            row, at = row[whole], at[whole]
            length = lengths[at].astype(np.int64)
            whole = length >= ATTRIBUTE.size
            row, at, length = row[whole], at[whole], length[whole]
            yield row, kinds[at], at + ATTRIBUTE.size, np.minimum(at + length, self.stop[row])
            at = at + length + -length % 4


def joined_dumps(dumps: Mapping[int, Sequence[bytes]]) -> tuple[Ints, Pieces]:
    """The messages of some nodes' dumps, and of which node each is; (C,)."""
    bodies = list(chain.from_iterable(dumps.values()))
    stop = np.cumsum([0, *map(len, bodies)])
    node = np.repeat(np.array(list(dumps), np.int64), list(map(len, dumps.values())))
    return node, Pieces(np.frombuffer(b"".join(bodies), np.uint8), stop[:-1], stop[1:])


def _overlapping(data: np.ndarray, form: npt.DTypeLike) -> np.ndarray:
    """The values of a type that begin at each byte."""
    kind = np.dtype(form)
    values: np.ndarray = np.ndarray((max(len(data) - kind.itemsize + 1, 0),), kind, data, strides=(1,))
    return values
