"""The files of a capture, written packet by packet: as they are heard, or from what several guests have heard."""

from __future__ import annotations

import heapq
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import BinaryIO

from isl_emu.files import read_json
from isl_emu.linkplan.plan import LinkPlan
from isl_emu.linkplan.plan_file import read_plan
from isl_emu.parts.captures import pcapng
from isl_emu.parts.captures.specification import FOLDER, SPECIFICATIONS, Specification
from isl_emu.runs.folder import RunFolder
from isl_emu.runs.journal import Journal, read_journal
from isl_emu.units import NS_PER_US

JOURNAL = "captures"  # a line for each link end in each file, when the file is complete
PIECES_JOURNAL = "capture_pieces"  # the same of a capture of which several guests hear a piece each


@dataclass
class Count:
    """What a file has of a link end."""

    packets: int = 0
    byte: int = 0
    first_ns: int | None = None
    last_ns: int | None = None


@dataclass
class Recording:
    """The files of one capture.

    Args:
        head: of each file.
        start_ns: UTC of instant 0.
        folder: of its files; None: there is only one, which is `stream`.
        missed: how many packets were missed since the last call, by the numbers of link ends.
    """

    what: Specification
    head: bytes
    start_ns: int
    journal: Journal
    folder: Path | None
    stream: BinaryIO | None = None
    missed: Callable[[], Mapping[int, int]] = dict
    packets: int = 0
    dropped: int = 0
    last_ns: int = 0  # when the last packet passed
    _name: str | None = None  # of the file
    _number: int = 0
    _size_byte: int = 0
    _kept: list[str] = field(default_factory=list)
    _counts: dict[int, Count] = field(default_factory=dict)
    _file: BinaryIO | None = None

    @property
    def is_full(self) -> bool:
        """Whether it has all that it is to have."""
        return self.what.packets is not None and self.packets >= self.what.packets

    def begin_file(self) -> None:
        """Open the first file, or the next; the oldest is removed if there are too many."""
        self._number += 1
        if self.folder is None:
            self._file = self.stream
        else:
            self._name = f"{self.what.name}.pcapng" if self._number == 1 else f"{self.what.name}.{self._number}.pcapng"
            self._file = (self.folder / self._name).open("xb")
            self._kept.append(self._name)
            while len(self._kept) > self.what.files:
                (self.folder / self._kept.pop(0)).unlink()
        assert self._file is not None
        self._file.write(self.head)
        self._size_byte = len(self.head)

    def write(self, number: int, t_ns: int, block: bytes, length: int) -> None:
        """Write a packet of the link end with this number, which has this length, as its block."""
        if self.folder is not None and self._size_byte + len(block) > self.what.file_size_byte:
            self.end_file(t_ns)
            self.begin_file()
        assert self._file is not None
        self._file.write(block)
        self._size_byte += len(block)
        self.packets, self.last_ns = self.packets + 1, t_ns
        count = self._counts.setdefault(number, Count())
        count.packets, count.byte, count.last_ns = count.packets + 1, count.byte + length, t_ns
        count.first_ns = t_ns if count.first_ns is None else count.first_ns

    def flush(self) -> None:
        """Let others see what was written."""
        if self._file is not None:
            self._file.flush()

    def end_file(self, t_ns: int) -> None:
        """Write what was counted, and close the file."""
        if self._file is None:
            return
        dropped = self.missed()
        self.dropped += sum(dropped.values())
        for number, end in enumerate(self.what.ends):
            count, missed = self._counts.get(number, Count()), dropped.get(number, 0)
            begin_ns = self.start_ns + (t_ns if count.first_ns is None else count.first_ns)
            counted = count.packets, missed
            self._file.write(pcapng.statistics(number, begin_ns, self.start_ns + max(t_ns, 0), *counted))
            self.journal.append({
                "capture": self.what.name, "file": self._name, "node": end.node, "peer": end.peer,
                "packets": count.packets, "byte": count.byte, "dropped": missed,
                "t_first_ns": count.first_ns, "t_last_ns": count.last_ns,
            })  # fmt: skip
        self._file.flush()
        if self.folder is not None:
            self._file.close()
        self._file = None
        self._counts.clear()

    def end(self, t_ns: int) -> None:
        """End the last file: now, or when it had all that it was to have."""
        self.end_file(self.last_ns if self.is_full else t_ns)

    def told(self) -> str:
        """How much it has, in one line."""
        missed = f", and {self.dropped:,} that were missed: more than this process could take" if self.dropped else ""
        return f"{self.packets:,} packet{'' if self.packets == 1 else 's'}{missed}"


def start_ns_of(plan: LinkPlan) -> int:
    """UTC of instant 0."""
    return NS_PER_US * ((plan.grid.start - datetime(1970, 1, 1, tzinfo=timezone.utc)) // timedelta(microseconds=1))


def piece_of(what: Specification) -> Specification:
    """What one of several guests writes of a capture: one file with all that it hears, for `merge_pieces`."""
    return replace(what, file_size_byte=sys.maxsize, files=1)


def merge_pieces(guests: Sequence[RunFolder]) -> None:
    """Make the files of each capture of which several guests have heard a piece, as one would have written them.

    Args:
        guests: the run's folder with the journal of each; that of the first gets the lines.
    """
    run = guests[0]
    pieces = [guest.journal / FOLDER for guest in guests if (guest.journal / FOLDER).is_dir()]
    if not pieces:
        return
    lines = [line for guest in guests for line in read_journal(guest.journal / f"{PIECES_JOURNAL}.jsonl").records]
    start_ns = start_ns_of(read_plan(run.plan))
    with Journal(run.journal / f"{JOURNAL}.jsonl") as journal:
        for record in (read_json(run.journal / SPECIFICATIONS) or {})["captures"]:
            what = Specification.of_json(record)
            paths = [path for piece in pieces if (path := piece / f"{what.name}.pcapng").is_file()]
            ends = {(end.node, end.peer): number for number, end in enumerate(what.ends)}
            missed = Counter[int]()
            for line in lines:
                if line["capture"] == what.name:
                    missed[ends[line["node"], line["peer"]]] += line["dropped"]
            if paths:
                _merge(Recording(what, b"", start_ns, journal, run.path / FOLDER, missed=partial(_once, missed)), paths)
    for guest in guests:
        shutil.rmtree(guest.journal / FOLDER, ignore_errors=True)
        (guest.journal / f"{PIECES_JOURNAL}.jsonl").unlink(missing_ok=True)


def _once(missed: Counter[int]) -> Mapping[int, int]:
    """All that were missed, the first time that it is called."""
    found = dict(missed)
    missed.clear()
    return found


def _merge(recording: Recording, paths: Sequence[Path]) -> None:
    """Write what some pieces have in the order of time; what passed at the same time in that of the link ends."""
    with ExitStack() as closing:
        files = [closing.enter_context(path.open("rb")) for path in paths]
        recording.head = [pcapng.read_head(file) for file in files][0]
        recording.begin_file()
        t_ns = 0
        for one in heapq.merge(*map(pcapng.read_marks, files)):
            if recording.is_full:
                break
            t_ns = one.utc_ns - recording.start_ns
            if not one.counts:
                recording.write(one.end, t_ns, one.block, one.length)
        recording.end(t_ns)
