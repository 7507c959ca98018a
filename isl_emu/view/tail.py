"""Reading the journals of a live run while they grow, from beside it: whole records alone, each once.

What is in a guest may write anything there. So nothing is followed out of the journal by a link, a pipe holds nobody
up, and what is no record is passed over.
"""

from __future__ import annotations

import json
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa

PIECE_BYTE = 1 << 22  # at most, of one file at once


class Tail:
    """One file of a journal; it may not be there yet, and what was opened is read to its end also when it is removed.

    Args:
        journal: the folder.
    """

    def __init__(self, journal: Path, name: str):
        self._journal, self._name = journal, name
        self._descriptor: int | None = None
        self._read_byte, self._rest = 0, b""
        self._head = b""  # of an Arrow stream: its schema

    def new_bytes(self) -> bytes:
        """What has come since; at most so much at once."""
        if self._descriptor is None:
            with suppress(OSError):
                self._descriptor = _open_regular(self._journal, self._name)
        if self._descriptor is None:
            return b""
        found = os.pread(self._descriptor, PIECE_BYTE, self._read_byte)
        self._read_byte += len(found)
        return found

    def lines(self) -> list[dict[str, Any]]:
        """The new records of a journal of JSON lines."""
        *whole, self._rest = (self._rest + self.new_bytes()).split(b"\n")
        if len(self._rest) > PIECE_BYTE:
            self._rest = b""  # no record is so long
        found = []
        for line in whole:
            with suppress(ValueError, RecursionError):
                record = json.loads(line)
                if isinstance(record, dict):
                    found.append(record)
        return found

    def batches(self) -> list[pa.RecordBatch]:
        """The new batches of a journal that is an Arrow stream without dictionaries."""
        if not (new := self.new_bytes()):
            return []
        self._rest += new
        found, done_byte = [], 0
        with suppress(pa.ArrowInvalid, OSError):  # a message that is not whole yet
            source = pa.BufferReader(self._head + self._rest)
            reader = pa.ipc.open_stream(source)
            done_byte = source.tell() - len(self._head)
            for batch in reader:
                found.append(batch)
                done_byte = source.tell() - len(self._head)
        if not self._head:
            self._head = self._rest[: len(reader.schema.serialize())] if done_byte else b""
        self._rest = self._rest[done_byte:]
        return found

    def close(self) -> None:
        """Read no more."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _open_regular(folder: Path, name: str) -> int:
    """A descriptor of a plain file in a folder that is no link; OSError if it is none, or not there."""
    at = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=at)
    finally:
        os.close(at)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"{name}: is no file")
    return descriptor
