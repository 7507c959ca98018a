"""The process of captures: one for all of a scenario's, and one for each that is made by hand.

It makes the taps, hears all link ends, and writes each packet in the order in which it comes. A file ends with what was
counted, also what this process was too slow for.
"""

from __future__ import annotations

import argparse
import json
import os
import selectors
import signal
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import BinaryIO, NamedTuple

from isl_emu.files import read_json
from isl_emu.linkplan.plan_file import read_plan
from isl_emu.network.naming import mac_bytes
from isl_emu.network.taps import Tap
from isl_emu.parts.captures import pcapng
from isl_emu.parts.captures.filters import for_sent_from
from isl_emu.parts.captures.listening import Ear, Stamps
from isl_emu.parts.captures.notes import PlanNotes
from isl_emu.parts.captures.specification import FOLDER, SPECIFICATIONS, Specification, headings, names_of
from isl_emu.routing.forwarding import read_routes
from isl_emu.runs.clock import RunClock, RunTimes, run_clock, run_parser
from isl_emu.runs.endpoints import Endpoint, read_endpoints
from isl_emu.runs.folder import RunFolder
from isl_emu.runs.journal import Journal
from isl_emu.runs.loop import NanosecondSelector
from isl_emu.scenario.parse import load_scenario
from isl_emu.tables.text import counted
from isl_emu.timebase import EXACT_TIME
from isl_emu.units import NS_PER_US

JOURNAL = "captures"  # a line for each link end in each file, when the file is complete


@dataclass
class Count:
    """What a file has of a link end."""

    packets: int = 0
    byte: int = 0
    first_ns: int | None = None
    last_ns: int | None = None


class PlacedEar(NamedTuple):
    """An ear at a link end: the end's number in the file and in the plan, and whether it hears what is sent there."""

    number: int
    end: int
    outbound: bool
    ear: Ear


@dataclass
class Recording:
    """The files of one capture.

    Args:
        head: of each file.
        start_ns: UTC of instant 0.
        folder: of its files; None: there is only one, which is `stream`.
    """

    what: Specification
    head: bytes
    start_ns: int
    notes: PlanNotes
    journal: Journal
    ears: Sequence[PlacedEar]
    folder: Path | None
    stream: BinaryIO | None = None
    packets: int = 0
    dropped: int = 0
    _name: str | None = None  # of the file
    _number: int = 0
    _size_byte: int = 0
    _kept: list[str] = field(default_factory=list)
    _counts: dict[int, Count] = field(default_factory=lambda: defaultdict(Count))
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

    def write(self, ear: PlacedEar, t_ns: int, data: bytes, length: int) -> None:
        """Write a packet."""
        comment = self.notes.on(ear.end, ear.outbound, t_ns, data)
        utc_ns = self.start_ns + t_ns
        block = pcapng.packet(ear.number, utc_ns, data, length, outbound=ear.outbound, comment=comment)
        if self.folder is not None and self._size_byte + len(block) > self.what.file_size_byte:
            self.end_file(t_ns)
            self.begin_file()
        assert self._file is not None
        self._file.write(block)
        self._size_byte += len(block)
        self.packets += 1
        count = self._counts[ear.number]
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
        dropped: dict[int, int] = defaultdict(int)
        for ear in self.ears:
            dropped[ear.number] += ear.ear.dropped()
        self.dropped += sum(dropped.values())
        for number, end in enumerate(self.what.ends):
            count = self._counts[number]
            begin_ns = self.start_ns + (t_ns if count.first_ns is None else count.first_ns)
            counted = count.packets, dropped[number]
            self._file.write(pcapng.statistics(number, begin_ns, self.start_ns + max(t_ns, 0), *counted))
            self.journal.append({
                "capture": self.what.name, "file": self._name, "node": end.node, "peer": end.peer,
                "packets": count.packets, "byte": count.byte, "dropped": dropped[number],
                "t_first_ns": count.first_ns, "t_last_ns": count.last_ns,
            })  # fmt: skip
        self._file.flush()
        if self.folder is not None:
            self._file.close()
        self._file = None
        self._counts.clear()

    def told(self) -> str:
        """How much it has, in one line."""
        missed = f", and {self.dropped:,} that were missed: more than this process could take" if self.dropped else ""
        return f"{counted(self.packets, 'packet')}{missed}"


class Capturer:
    """Hears all link ends of some captures, and writes what comes, from instant 0 to the end of the run.

    Args:
        recordings: with their files begun and their ears open.
    """

    def __init__(self, recordings: Sequence[Recording], clock: RunClock, times: RunTimes):
        self._recordings, self._clock, self._times = recordings, clock, times
        self._stamps = Stamps(clock, times.t0_ns)
        wished_ns = [one.what.until_ns for one in recordings if one.what.until_ns is not None]
        self._until_ns = min([times.until_ns, *(times.t0_ns + one for one in wished_ns)])

    def run(self) -> None:
        """Capture until the end, or until nothing is left to capture."""
        with NanosecondSelector() if EXACT_TIME in os.environ else selectors.DefaultSelector() as selector:
            for recording in self._recordings:
                for ear in recording.ears:
                    selector.register(ear.ear, selectors.EVENT_READ, (recording, ear))
            while self._clock.now_ns() < self._until_ns and not all(one.is_full for one in self._recordings):
                ready = selector.select(self._clock.timeout_s(self._until_ns))
                self._take([key.data for key, _ in ready])
            while ready := selector.select(0):
                self._take([key.data for key, _ in ready])

    def end(self) -> None:
        """Close all files."""
        t_ns = self._clock.now_ns() - self._times.t0_ns
        for recording in self._recordings:
            recording.end_file(t_ns)

    def _take(self, ready: Iterable[tuple[Recording, PlacedEar]]) -> None:
        """Write what has come, in the order of time; what came at the same time in that of the link ends."""
        self._stamps.read()
        heard = [
            (self._stamps.t_ns(one.utc_ns), ear.number, not ear.outbound, recording, ear, one)
            for recording, ear in ready
            for one in ear.ear.hear()
        ]
        for t_ns, _, _, recording, ear, one in sorted(heard, key=lambda row: row[:3]):
            if 0 <= t_ns < self._until_ns - self._times.t0_ns and not recording.is_full:
                recording.write(ear, t_ns, one.data, one.length)
        for recording in self._recordings:
            recording.flush()


def open_ears(what: Specification, endpoints: Mapping[str, Endpoint], taps: Mapping[str, Tap]) -> Iterator[PlacedEar]:
    """The sockets of a capture, at each of its link ends for what it is to hear there."""
    for number, one in enumerate(what.ends):
        netns = endpoints[one.node].netns
        if one.sent:
            program = for_sent_from(mac_bytes(one.end), what.program)
            yield PlacedEar(number, one.end, True, Ear(netns, taps[one.node].name, program, arriving=False))
        if one.arrived:
            yield PlacedEar(number, one.end, False, Ear(netns, one.interface, what.program, arriving=True))


def open_taps(
    wanted: Iterable[Specification], endpoints: Mapping[str, Endpoint], undo: ExitStack, lost: list[str]
) -> dict[str, Tap]:
    """A tap in each node of which something is captured that it sends; `undo` removes them.

    Args:
        lost: gets the names of nodes whose taps were gone by then.
    """
    interfaces: dict[str, set[int]] = defaultdict(set)
    for one in (end for what in wanted for end in what.ends if end.sent):
        interfaces[one.node].add(one.index)
    taps: dict[str, Tap] = {}

    def remove(node: str) -> None:
        if not taps[node].close():
            lost.append(node)

    for node, indices in interfaces.items():
        taps[node] = Tap(endpoints[node].netns, sorted(indices))
        undo.callback(remove, node)
    return taps


def capture(
    wanted: Sequence[Specification], options: argparse.Namespace, stream: BinaryIO | None
) -> Sequence[Recording]:
    """Capture from now, or instant 0, to the end; what was captured.

    Args:
        stream: what one capture is written to, in place of files in the results.
    """
    run, times, clock = RunFolder(options.journal.parent), RunTimes.of(options), run_clock(options.journal)
    endpoints, lost = read_endpoints(options.journal), list[str]()
    with ExitStack() as undo, Journal(options.journal / f"{JOURNAL}.jsonl") as journal:
        taps = open_taps(wanted, endpoints, undo, lost)
        ears = [list(open_ears(what, endpoints, taps)) for what in wanted]  # they hear from now on
        plan = read_plan(run.plan)
        routes, scenario = read_routes(run.routes, plan), load_scenario(run.scenario)
        said = headings(scenario.name, scenario.seed, plan), names_of(plan, routes)
        folder = None if stream else run.path / FOLDER
        if folder is not None:
            folder.mkdir(exist_ok=True)
        start_ns = (plan.grid.start - datetime(1970, 1, 1, tzinfo=timezone.utc)) // timedelta(microseconds=1)
        recordings = [
            Recording(what, file_head(what, *said), NS_PER_US * start_ns, PlanNotes(plan, routes), journal, own, folder,
                      stream)
            for what, own in zip(wanted, ears, strict=True)
        ]  # fmt: skip
        capturer = Capturer(recordings, clock, times)
        try:
            for recording in recordings:
                recording.begin_file()
                recording.flush()
            capturer.run()
        except SystemExit:  # the run, or who asks for it, ends it before
            pass
        finally:
            capturer.end()
            undo.close()
            for node in lost:
                journal.append({"lost_tap": node})
    return recordings


def file_head(what: Specification, comments: Sequence[str], names: Mapping[str, Sequence[str]]) -> bytes:
    """The beginning of each file of a capture."""
    clock = "exact: virtual, to the nanosecond" if EXACT_TIME in os.environ else "real: the machine's"
    place = f"capture {what.name}: {what.place}{f', filter {what.filter}' if what.filter else ''}"
    ends = [
        pcapng.End(f"{one.node}:to-{one.peer}", f"{one.kind}, interface {one.interface}", mac_bytes(one.end),
                   one.speed_bit_s, what.snap_byte, what.filter)
        for one in what.ends
    ]  # fmt: skip
    return pcapng.head([place, *comments, f"clock {clock}"], f"isl-emu {version('isl-emu')}", ends, names)


def _stop(signum: int, frame: FrameType | None) -> None:
    """End in order: what has come until now is written."""
    raise SystemExit(0)


def main() -> None:
    """Run the capture process."""
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, _stop)
    parser = run_parser("isl_emu.parts.captures.capturer", __doc__)
    parser.add_argument("--by-hand", help="JSON of the capture that is written to standard output")
    options = parser.parse_args()
    if options.by_hand is None:
        wanted = read_json(options.journal / SPECIFICATIONS) or {}
        capture([Specification.of_json(one) for one in wanted["captures"]], options, None)
        return
    (found,) = capture([Specification.of_json(json.loads(options.by_hand))], options, sys.stdout.buffer)
    sys.stderr.write(f"{found.told()}\n")


if __name__ == "__main__":
    main()
