"""A file in pieces, each with its digest: how much of it a node has, and how what it is sent is verified.

A node keeps the running digest of the piece that it is being sent and not the bytes: a piece whose digest is right is
equal to that of the file which all nodes of one machine share, so one copy of the weights serves them all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

LEAST_PIECE_BYTE = 1 << 20
MOST_PIECES = 1024  # by default; their digests then fit into 64 kB


class DigestError(Exception):
    """A piece is not what it should be."""


@dataclass(frozen=True)
class Manifest:
    """What a file in pieces must be.

    Args:
        digests: SHA-256 of each piece, hexadecimal; all pieces but the last are `piece_byte` long.
    """

    size_byte: int
    piece_byte: int
    digests: tuple[str, ...]

    @property
    def count(self) -> int:
        """How many pieces there are."""
        return len(self.digests)

    def span(self, piece: int) -> tuple[int, int]:
        """Where a piece begins and where the next one would."""
        start = piece * self.piece_byte
        return start, min(start + self.piece_byte, self.size_byte)

    def pieces_of(self, start: int, end: int) -> range:
        """The pieces that bytes `start` to `end` (excluded) lie in."""
        return range(start // self.piece_byte, -(-end // self.piece_byte))

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Manifest:
        """What `to_json` gave."""
        return cls(record["size_byte"], record["piece_byte"], tuple(record["digests"]))


def describe(path: Path, piece_byte: int | None = None) -> Manifest:
    """Read a file and take the digests of its pieces.

    Args:
        piece_byte: their length; `default_piece_byte` by default.
    """
    size_byte = path.stat().st_size
    piece_byte = piece_byte or default_piece_byte(size_byte)
    with path.open("rb") as file:
        blocks = iter(lambda: file.read(piece_byte), b"")
        return Manifest(size_byte, piece_byte, tuple(hashlib.sha256(block).hexdigest() for block in blocks))


def default_piece_byte(size_byte: int) -> int:
    """A power of two, at least `LEAST_PIECE_BYTE`, that makes at most `MOST_PIECES` of a file."""
    return max(LEAST_PIECE_BYTE, 1 << (-(-size_byte // MOST_PIECES) - 1).bit_length())


@dataclass
class _Begun:
    """A piece that has come in part."""

    hasher: Any = field(default_factory=hashlib.sha256)
    count_byte: int = 0


@dataclass
class Holding:
    """What a node has of a file.

    Args:
        held: for each piece whether it is there and verified.
        verified: is told of each piece that becomes so.
    """

    manifest: Manifest
    held: bytearray
    verified: Callable[[int], object] = lambda piece: None
    _begun: dict[int, _Begun] = field(default_factory=dict)

    @classmethod
    def nothing(cls, manifest: Manifest) -> Holding:
        """Of a node that is to receive the file."""
        return cls(manifest, bytearray(manifest.count))

    @classmethod
    def everything(cls, manifest: Manifest) -> Holding:
        """Of a node that has the file."""
        return cls(manifest, bytearray(b"\1" * manifest.count))

    @property
    def complete(self) -> bool:
        """Whether the whole file is there and verified."""
        return all(self.held)

    @property
    def held_byte(self) -> int:
        """How much is verified."""
        spans = (self.manifest.span(piece) for piece, there in enumerate(self.held) if there)
        return sum(end - start for start, end in spans)

    @property
    def received_byte(self) -> int:
        """How much has come, with what is not verified yet."""
        return self.held_byte + sum(begun.count_byte for begun in self._begun.values())

    def has(self, start: int, end: int) -> bool:
        """Whether bytes `start` to `end` (excluded) of the file are there and verified."""
        within = 0 <= start < end <= self.manifest.size_byte
        return within and all(self.held[piece] for piece in self.manifest.pieces_of(start, end))

    def missing(self) -> Iterator[int]:
        """The pieces that are not verified yet, in order."""
        return (piece for piece, there in enumerate(self.held) if not there)

    def gap(self) -> tuple[int, int]:
        """The first bytes that are missing: from the first one that has not come, to the next piece that is there."""
        first = next(self.missing())
        following = self.held.find(1, first)
        return self.next_byte(first), self.manifest.size_byte if following < 0 else self.manifest.span(following)[0]

    def next_byte(self, piece: int) -> int:
        """The first byte of a missing piece that has not come yet."""
        begun = self._begun.get(piece)
        return self.manifest.span(piece)[0] + (begun.count_byte if begun else 0)

    def take(self, start: int, data: bytes) -> None:
        """Take in bytes of the file that follow on what came of their piece before.

        Raises:
            DigestError: the piece that they complete is not what it should be; all of it is missing again.
        """
        while data:
            piece = start // self.manifest.piece_byte
            if self.held[piece] or start != self.next_byte(piece):
                raise ValueError(f"piece {piece}: byte {start} came, but {self.next_byte(piece)} is next; send that")
            whole = self.manifest.span(piece)[1]
            part, data = data[: whole - start], data[whole - start :]
            start += len(part)
            begun = self._begun.setdefault(piece, _Begun())
            begun.hasher.update(part)
            begun.count_byte += len(part)
            if start == whole:
                del self._begun[piece]
                if begun.hasher.hexdigest() != self.manifest.digests[piece]:
                    raise DigestError(f"piece {piece} has another SHA-256 than it must; it is asked for again")
                self.held[piece] = 1
                self.verified(piece)
