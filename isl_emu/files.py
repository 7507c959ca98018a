"""Files: written in one step, read within bounds, JSON both ways, and TOML read by whichever library Python has for it.

Whatever a user names is read through here: regular files only, so that no pipe or device holds a reader up, and no more
of one than `isl_emu.limits` allows. What somebody writes while it is read, a pipe, is waited for within bounds."""

from __future__ import annotations

import errno
import json
import os
import select
import stat
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, BinaryIO

from isl_emu.limits import MIB

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = [
    "bounded_lines",
    "check_regular",
    "encoding_of",
    "everybody_may_read",
    "open_regular",
    "read_json",
    "read_stream",
    "read_whole",
    "tomllib",
    "why_unread",
    "write_json",
    "write_whole",
]

LONGEST_LINE = 16 << 20  # characters
BLOCK_BYTE = 1 << 20
STREAM_PATIENCE_S = 60.0  # for all that somebody writes into a pipe
STREAMS = (stat.S_IFIFO, stat.S_IFSOCK)
KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a folder",
}
PACKED = {b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


def everybody_may_read(path: Path) -> bool:
    """Whether each user of the machine may read a file, wherever its links lead."""
    found = path.resolve()
    entered = all(folder.stat().st_mode & stat.S_IXOTH for folder in found.parents)
    return entered and bool(found.stat().st_mode & stat.S_IROTH)


def write_whole(path: Path, text: str | bytes) -> None:
    """Write `text` so that whoever reads it meanwhile, or after a crash, finds the old file or the new one.

    Who else may write into the folder cannot lead it elsewhere by a link.
    """
    draft = path.with_name(path.name + ".new")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o666), "wb") as file:
        file.write(text.encode() if isinstance(text, str) else text)
    draft.replace(path)


def encoding_of(head: bytes) -> str:
    """How a text that begins with these bytes is encoded: UTF-16, as PowerShell writes it, says so; all else is UTF-8.

    Raises:
        ValueError: it is packed.
    """
    for mark, packer in PACKED.items():
        if head.startswith(mark):
            raise ValueError(f"it is packed by {packer}, but text is read; unpack it first")
    return "utf-16" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"


def why_unread(error: Exception) -> str:
    """Why a file cannot be read, as it stands in brackets: what the machine, `encoding_of` or decoding said."""
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8 text"
    return getattr(error, "strerror", None) or str(error).partition(",")[0]


def check_regular(path: Path) -> None:
    """Raise an OSError unless this is a file of bytes, wherever its links lead."""
    if kind := KINDS.get(stat.S_IFMT(path.stat().st_mode)):
        raise OSError(errno.EINVAL, f"it is {kind} and no file", str(path))


def open_regular(path: Path) -> BinaryIO:
    """A file of bytes, open for reading.

    Raises:
        OSError: there is none, or it is a pipe, a device or the like.
    """
    check_regular(path)  # to open a device may do something already
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        check_regular(Path(f"/proc/self/fd/{descriptor}"))
    except OSError:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def read_whole(path: Path) -> bytes:
    """All that is in a file.

    Raises:
        OSError: it cannot be read, is no file of bytes, or has more of them than the limit.
    """
    most_byte = MIB.most << 20
    with open_regular(path) as file:
        data: bytes | None = file.read(most_byte + 1)
        has_byte = max(os.fstat(file.fileno()).st_size, len(data or b""))
    if data is None:
        raise OSError(errno.EINVAL, "it has nothing to read now", str(path))
    if len(data) > most_byte:
        raise _too_large(f"{has_byte / (1 << 20):,.0f} MiB", path)
    return data


def read_stream(descriptor: int, patience_s: float = STREAM_PATIENCE_S) -> bytes:
    """All that somebody writes into a pipe, or that is in an open file.

    Raises:
        OSError: it cannot be read, is a device or the like, has more bytes than the limit, or its writer does not come
            to an end in time.
    """
    kind = stat.S_IFMT(os.fstat(descriptor).st_mode)
    if kind in KINDS and kind not in STREAMS:
        raise OSError(errno.EINVAL, f"it is {KINDS[kind]} and no file")
    data, most_byte, until_s = bytearray(), MIB.most << 20, time.monotonic() + patience_s
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    while poll.poll(max(0.0, until_s - time.monotonic()) * 1e3):
        block = os.read(descriptor, BLOCK_BYTE)
        data += block
        if len(data) > most_byte:
            raise _too_large(f"more than {MIB.most:,} MiB", None)
        if not block:
            return bytes(data)
    raise OSError(errno.ETIMEDOUT, f"nobody has written its end in {patience_s:g} s")


def _too_large(has: str, path: Path | None) -> OSError:
    rule = f"it has {has} and the most is {MIB.most:,}, unless {MIB.variable} says more"
    return OSError(errno.EFBIG, rule, None if path is None else str(path))


def bounded_lines(file: IO[str]) -> Iterator[str]:
    """The lines of a text.

    Raises:
        ValueError: one is longer than any should be.
    """
    while line := file.readline(LONGEST_LINE):
        if len(line) == LONGEST_LINE:
            raise ValueError(
                f"it has a line of more than {LONGEST_LINE >> 20} million characters, but none is so long; break it"
            )
        yield line


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Write a record in one step."""
    write_whole(path, json.dumps(record, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict[str, Any] | None:
    """The record in a file; None if there is no file, only part of one, or something else."""
    try:
        found = json.loads(read_whole(path))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
