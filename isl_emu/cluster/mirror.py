"""A folder on one machine becomes one on another: what is new or has grown travels in pieces, again and again.

Files of a run are written in one step or appended to, so a piece is a file from its beginning or what was appended.
Who writes into a folder may be a guest: no link in it is followed, and only files and folders are looked at.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from isl_emu.errors import MachineError

DRAFT = ".new"  # how a file's name ends that is not written to its end
PIECE_BYTE = 8 << 20  # at once


class Piece(NamedTuple):
    """What has come to a folder.

    Args:
        path: within the folder.
        data: of a file; None for a folder.
        begins: whether the file begins with it; otherwise it goes to its end.
    """

    path: str
    data: bytes | None = None
    begins: bool = True


class _State(NamedTuple):
    inode: int
    mtime_ns: int
    byte: int  # of these the other side has


class Mirror:
    """One of the two folders.

    Args:
        wanted: whether a path within it is to travel; of a folder that is not, nothing is.
    """

    def __init__(self, folder: Path, wanted: Callable[[str], bool] = lambda path: True):
        self._folder, self._wanted = folder, wanted
        self._known: dict[str, _State | None] = {}

    def changes(self, most_byte: int = PIECE_BYTE) -> list[Piece]:
        """What the other side lacks, in the order of the names; about so many bytes of it at the most.

        None are left if there are none. A file is complete before one is begun whose name comes later in its folder.
        """
        found: list[Piece] = []
        for place, folders, names, at in os.fwalk(self._folder, follow_symlinks=False):
            inside = PurePosixPath(os.path.relpath(place, self._folder))
            folders[:] = [name for name in sorted(folders) if self._wanted(str(inside / name))]
            for name in folders:
                if str(inside / name) not in self._known:
                    self._known[str(inside / name)] = None
                    found.append(Piece(str(inside / name)))
            for name in sorted(names):
                path = str(inside / name)
                while most_byte > 0 and self._wanted(path) and not name.endswith(DRAFT):
                    if (piece := self._changed(path, name, at, most_byte)) is None:
                        break
                    found.append(piece)
                    most_byte -= len(piece.data or b"")
            if most_byte <= 0:
                break
        return found

    def _changed(self, path: str, name: str, at: int, most_byte: int) -> Piece | None:
        try:
            descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=at)
        except OSError:  # it is gone, or a link
            return None
        with open(descriptor, "rb") as file:
            found, known = os.fstat(descriptor), self._known.get(path)
            if not stat.S_ISREG(found.st_mode):
                return None
            grown = known is not None and known.inode == found.st_ino and known.byte < found.st_size
            if known == _State(found.st_ino, found.st_mtime_ns, found.st_size):
                return None
            begun_byte = known.byte if known is not None and grown else 0
            file.seek(begun_byte)
            data = file.read(min(most_byte, found.st_size - begun_byte))
            self._known[path] = _State(found.st_ino, found.st_mtime_ns, begun_byte + len(data))
            return Piece(path, data, not grown)

    def apply(self, pieces: Iterable[Piece]) -> None:
        """Take in what the other side has sent; it is not sent back.

        Raises:
            MachineError: it would lead out of the folder.
            OSError: it cannot be written.
        """
        for piece in pieces:
            parts = PurePosixPath(piece.path).parts
            if not parts or ".." in parts or PurePosixPath(piece.path).is_absolute():
                raise MachineError(
                    f"{piece.path}: is sent by another machine and leads out of the folder of a run, but what is sent "
                    "stays in it; trust nothing of this run"
                )
            with ExitStack() as closing:
                at = os.open(self._folder, os.O_PATH | os.O_DIRECTORY)
                closing.callback(os.close, at)
                for name in parts if piece.data is None else parts[:-1]:
                    at = _entered(name, at)
                    closing.callback(os.close, at)
                self._known[piece.path] = None if piece.data is None else _written(parts[-1], at, piece)


def _entered(name: str, at: int) -> int:
    """A folder, made if it is not there."""
    with suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=at)
    return os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=at)


def _written(name: str, at: int, piece: Piece) -> _State:
    """A file that begins appears in one step, in the place of another of its name."""
    if piece.begins:
        draft, flags = name + DRAFT, os.O_CREAT | os.O_TRUNC
    else:
        draft, flags = name, os.O_APPEND
    descriptor = os.open(draft, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC | flags, 0o644, dir_fd=at)
    with open(descriptor, "wb") as file:
        file.write(piece.data or b"")
        file.flush()
        state = os.fstat(descriptor)
    if piece.begins:
        os.rename(draft, name, src_dir_fd=at, dst_dir_fd=at)
    return _State(state.st_ino, state.st_mtime_ns, state.st_size)
