"""Journals: what a live run writes down, one JSON object a line, so that a kill costs the last line at most.

Each line goes to the file by one write to a descriptor opened for appending: no line is ever mixed with another
process's, and nothing waits in a buffer of ours.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

# Journals that several rooms name, and their tables after them; a part names its own. The file is NAME.jsonl.
INSTANTS_JOURNAL, LOAD_JOURNAL, OUTSIDE_JOURNAL, PAUSES_JOURNAL = "instants", "load", "outside", "pauses"
DROPS_JOURNAL = "drops"  # of the replay: a line for each link end that has dropped packets
INCIDENTS_JOURNAL = "incidents"  # what nobody planned: something died, or somebody changed the network
CHANGES_JOURNAL = "changes"  # of the replay; this one is Arrow, in NAME.arrow
LINKS_JOURNAL = "links"  # of the replay: what link ends have counted, in Arrow as well
SERVERS_JOURNAL = "servers"  # a line for each group, once its servers are ready: which they are, and at which pace
PROCESSES_JOURNAL = "processes"  # of each program in a container: its id, its node and its words
REQUESTS_JOURNAL = "requests"  # what became of each question: who asks writes it, all parts that answer read it

LATEST_BYTE = 1 << 21
BLOCK_BYTE = 1 << 20

_counted: dict[Path, tuple[int, int]] = {}  # journals that were counted: up to which byte, and how many lines


class Journal:
    """An open journal file; create it once and append records as they happen."""

    def __init__(self, path: Path):
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one record as one line; it is in the kernel's hands when this returns."""
        line = json.dumps(record, separators=(",", ":"), ensure_ascii=False).encode(errors="replace") + b"\n"
        written = os.write(self._descriptor, line)
        if written != len(line):
            raise OSError(errno.ENOSPC, f"only {written} of a line's {len(line)} bytes were written; is the disk full?")

    def close(self) -> None:
        """Close the file; nothing is pending."""
        os.close(self._descriptor)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()


def rewrite_journal(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Put other records in place of a journal's, in one step; who has the file by another name keeps the old ones."""
    new = path.with_suffix(".new")
    with Journal(new) as journal:
        for record in records:
            journal.append(record)
    new.replace(path)


@dataclass(frozen=True)
class JournalContent:
    """What a journal holds: its records in order, and how many lines could not be read."""

    records: tuple[dict[str, Any], ...]
    lost_lines: int


def read_journal(path: Path) -> JournalContent:
    """The records of a journal; a torn line (the writer was killed in it) is dropped and counted.

    A journal that was never begun has no records: nothing of its kind happened.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return JournalContent((), 0)
    parsed = [_parse(line) for line in lines if line.strip(b"\0 \r")]
    records = tuple(record for record in parsed if record is not None)
    return JournalContent(records, len(parsed) - len(records))


def joined(records: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Records in order, those of the same ``id`` as one: what a later one says of a thing goes before."""
    found: dict[Any, dict[str, Any]] = {}
    for number, record in enumerate(records):
        known = found.setdefault(record.get("id", ("alone", number)), {})
        known.update({key: value for key, value in record.items() if key != "id"})
    return list(found.values())


def read_latest(path: Path, size_byte: int = LATEST_BYTE) -> tuple[dict[str, Any], ...]:
    """The records in the last part of a journal, in order; cheap enough to ask while it grows."""
    if not path.exists():
        return ()
    with path.open("rb") as file:
        begun = max(0, file.seek(0, os.SEEK_END) - size_byte)
        file.seek(begun)
        lines = file.read().split(b"\n")[1 if begun else 0 :]
    return tuple(record for line in lines if (record := _parse(line)) is not None)


def count_lines(path: Path) -> int:
    """How many records a journal has so far; asked again while it grows, it reads only what is new."""
    read_byte, lines = _counted.get(path, (0, 0))
    try:
        with path.open("rb") as file:
            if file.seek(0, os.SEEK_END) < read_byte:  # another one in its place
                read_byte = lines = 0
            file.seek(read_byte)
            while new := file.read(BLOCK_BYTE):
                read_byte, lines = read_byte + len(new), lines + new.count(b"\n")
    except FileNotFoundError:
        read_byte = lines = 0
    _counted[path] = read_byte, lines
    return lines


def count_all(journals: Iterable[Path], name: str) -> int:
    """How many records the journals of this name have so far in some folders."""
    return sum(count_lines(folder / name) for folder in journals)


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None
