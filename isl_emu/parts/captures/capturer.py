"""The process of captures: one for all of a scenario's, and one for each that is made by hand.

It makes the taps, hears all link ends, and writes each packet in the order in which it comes. A file ends with what was
counted, also what this process was too slow for. Where several guests share a run, there is one in each.
"""

from __future__ import annotations

import argparse
import json
import os
import selectors
import signal
import sys
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import BinaryIO, NamedTuple

from isl_emu.errors import IslEmuError
from isl_emu.files import read_json
from isl_emu.linkplan.plan_file import read_plan
from isl_emu.network.naming import mac_bytes
from isl_emu.network.taps import Tap
from isl_emu.parts.captures import pcapng
from isl_emu.parts.captures.filters import for_sent_from
from isl_emu.parts.captures.listening import Ear, Heard, Stamps
from isl_emu.parts.captures.notes import PlanNotes
from isl_emu.parts.captures.recording import JOURNAL, PIECES_JOURNAL, Recording, piece_of, start_ns_of
from isl_emu.parts.captures.specification import FOLDER, SPECIFICATIONS, Specification, headings, names_of
from isl_emu.routing.forwarding import read_routes
from isl_emu.runs.clock import RunClock, RunTimes, run_clock
from isl_emu.runs.endpoints import Endpoint, read_endpoints
from isl_emu.runs.folder import RunFolder
from isl_emu.runs.journal import Journal
from isl_emu.runs.loop import NanosecondSelector
from isl_emu.runs.portion import Portion
from isl_emu.scenario.parse import load_scenario
from isl_emu.timebase import EXACT_TIME


class PlacedEar(NamedTuple):
    """An ear at a link end: the end's number in the file and in the plan, and whether it hears what is sent there."""

    number: int
    end: int
    outbound: bool
    ear: Ear


@dataclass(frozen=True)
class Hearing:
    """One capture while it goes on: the ears at its link ends, and the files of what they hear."""

    recording: Recording
    notes: PlanNotes
    ears: Sequence[PlacedEar]

    def write(self, ear: PlacedEar, t_ns: int, data: bytes, length: int) -> None:
        """Write a packet."""
        comment = self.notes.on(ear.end, ear.outbound, t_ns, data)
        utc_ns = self.recording.start_ns + t_ns
        block = pcapng.packet(ear.number, utc_ns, data, length, outbound=ear.outbound, comment=comment)
        self.recording.write(ear.number, t_ns, block, length)


class Capturer:
    """Hears all link ends of some captures, and writes what comes, from instant 0 to the end of the run.

    What passes at one time is written when that time is over, in the order of the link ends: in exact time much may
    happen at once, and which of it comes first here is chance.

    Args:
        hearings: with their files begun and their ears open.
    """

    def __init__(self, hearings: Sequence[Hearing], clock: RunClock, times: RunTimes):
        self._hearings, self._clock, self._times = hearings, clock, times
        self._stamps = Stamps(clock, times.t0_ns)
        self._waiting: list[tuple[int, int, bool, Hearing, PlacedEar, Heard]] = []
        lasting_ns = [one.recording.what.for_ns for one in hearings if one.recording.what.for_ns is not None]
        self._until_ns = min([times.until_ns, *(clock.now_ns() + one for one in lasting_ns)])

    def run(self) -> None:
        """Capture until the end, or until nothing is left to capture."""
        with NanosecondSelector() if EXACT_TIME in os.environ else selectors.DefaultSelector() as selector:
            for hearing in self._hearings:
                for ear in hearing.ears:
                    selector.register(ear.ear, selectors.EVENT_READ, (hearing, ear))
            while self._clock.now_ns() < self._until_ns and not all(one.recording.is_full for one in self._hearings):
                due_ns = min([self._until_ns, *(self._times.t0_ns + row[0] + 1 for row in self._waiting[:1])])
                ready = selector.select(self._clock.timeout_s(due_ns))
                self._take([key.data for key, _ in ready])
            while ready := selector.select(0):
                self._take([key.data for key, _ in ready])

    def end(self) -> None:
        """Close all files."""
        t_ns = min(self._clock.now_ns(), self._until_ns) - self._times.t0_ns
        self._write(t_ns)
        for hearing in self._hearings:
            hearing.recording.end(t_ns)

    def _take(self, ready: Iterable[tuple[Hearing, PlacedEar]]) -> None:
        """Hear what has come, and write what passed before now."""
        self._stamps.read()
        self._waiting += [
            (self._stamps.t_ns(one.utc_ns), ear.number, not ear.outbound, hearing, ear, one)
            for hearing, ear in ready
            for one in ear.ear.hear()
        ]
        self._write(self._clock.now_ns() - self._times.t0_ns)

    def _write(self, before_ns: int) -> None:
        """Write what has passed before some time, in the order of time, and at one time in that of the link ends."""
        self._waiting.sort(key=lambda row: row[:3])
        count = sum(row[0] < before_ns for row in self._waiting)
        passed, self._waiting = self._waiting[:count], self._waiting[count:]
        for t_ns, _, _, hearing, ear, one in passed:
            if 0 <= t_ns < self._until_ns - self._times.t0_ns and not hearing.recording.is_full:
                hearing.write(ear, t_ns, one.data, one.length)
        for hearing in self._hearings:
            hearing.recording.flush()


def open_ears(
    what: Specification, here: Collection[str], endpoints: Mapping[str, Endpoint], taps: Mapping[str, Tap]
) -> Iterator[PlacedEar]:
    """The sockets of a capture, at each of its link ends that is here for what it is to hear there."""
    for number, one in enumerate(what.ends):
        netns = endpoints[one.node].netns
        if one.sent and one.node in here:
            program = for_sent_from(mac_bytes(one.end), what.program)
            yield PlacedEar(number, one.end, True, Ear(netns, taps[one.node].name, program, arriving=False))
        if one.arrived and one.node in here:
            yield PlacedEar(number, one.end, False, Ear(netns, one.interface, what.program, arriving=True))


def open_taps(
    wanted: Iterable[Specification],
    here: Collection[str],
    endpoints: Mapping[str, Endpoint],
    undo: ExitStack,
    lost: list[str],
) -> dict[str, Tap]:
    """A tap in each node here of which something is captured that it sends; `undo` removes them.

    Args:
        lost: gets the names of nodes whose taps were gone by then.
    """
    interfaces: dict[str, set[int]] = defaultdict(set)
    for one in (end for what in wanted for end in what.ends if end.sent and end.node in here):
        interfaces[one.node].add(one.index)
    taps: dict[str, Tap] = {}

    def remove(node: str) -> None:
        if not taps[node].close():
            lost.append(node)

    for node, indices in interfaces.items():
        taps[node] = Tap(endpoints[node].netns, sorted(indices))
        undo.callback(remove, node)
    return taps


def capture(wanted: Sequence[Specification], run: RunFolder, stream: BinaryIO | None) -> Sequence[Recording]:
    """Hear link ends at once, write what comes from instant 0 or from now on to the end, and return what was written.

    Standard output gets a line when all is ready, if it is not what is written to. Then standard input gives the times
    of the run. Where several guests share it, only what passes here is heard; of a capture of which another one hears
    something as well a piece is left, from which its files are made.

    Args:
        stream: what one capture is written to, in place of files in the results.
    """
    endpoints, lost = read_endpoints(run.journal), list[str]()
    portion = Portion.read(run.path, run.part, len(endpoints))
    here = {name for name, is_here in zip(endpoints, portion.here.tolist(), strict=True) if is_here}
    wanted = [what for what in wanted if any(end.node in here for end in what.ends)]
    with ExitStack() as undo, Journal(run.journal / f"{JOURNAL}.jsonl") as journal:
        if portion.count > 1:
            (run.journal / FOLDER).mkdir(exist_ok=True)
            pieces = undo.enter_context(Journal(run.journal / f"{PIECES_JOURNAL}.jsonl"))
        taps = open_taps(wanted, here, endpoints, undo, lost)
        ears = [list(open_ears(what, here, endpoints, taps)) for what in wanted]  # they hear from now on
        plan = read_plan(run.plan)
        routes, scenario = read_routes(run.routes, plan), load_scenario(run.scenario)
        said = headings(scenario.name, scenario.seed, plan), names_of(plan, routes)
        if stream is None:
            (run.path / FOLDER).mkdir(exist_ok=True)
            print("ready", flush=True)
        times = RunTimes(**json.loads(sys.stdin.readline() or "null"))
        hearings = []
        for what, own in zip(wanted, ears, strict=True):
            folder = None if stream else run.path / FOLDER
            recording = Recording(
                what, file_head(what, *said), start_ns_of(plan), journal, folder, stream, partial(_missed, own)
            )
            if folder and not all(end.node in here for end in what.ends):
                recording = replace(recording, what=piece_of(what), journal=pieces, folder=run.journal / FOLDER)
            hearings.append(Hearing(recording, PlanNotes(plan, routes), own))
        capturer = Capturer(hearings, run_clock(run.journal), times)
        try:
            for hearing in hearings:
                hearing.recording.begin_file()
                hearing.recording.flush()
            capturer.run()
        except SystemExit:  # the run, or who asks for it, ends it before
            pass
        finally:
            capturer.end()
            undo.close()
            for node in lost:
                journal.append({"lost_tap": node})
    return [hearing.recording for hearing in hearings]


def _missed(ears: Iterable[PlacedEar]) -> Counter[int]:
    """How many packets each link end's ears have missed since the last call."""
    found = Counter[int]()
    for ear in ears:
        found[ear.number] += ear.ear.dropped()
    return found


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
    parser = argparse.ArgumentParser(prog="isl_emu.parts.captures.capturer", description=__doc__)
    parser.add_argument("--journal", type=Path, required=True, help="folder of the run's journals")
    parser.add_argument("--part", type=int, default=0, help="whose they are, of guests that share the run")
    parser.add_argument("--by-hand", help="JSON of the capture that is written to standard output")
    options = parser.parse_args()
    run = RunFolder(options.journal.parent, options.part)
    if options.by_hand is None:
        wanted = (read_json(run.journal / SPECIFICATIONS) or {})["captures"]
        capture([Specification.of_json(one) for one in wanted], run, None)
        return
    one = Specification.of_json(json.loads(options.by_hand))
    try:
        (found,) = capture([one], run, sys.stdout.buffer)
    except IslEmuError as error:
        sys.exit(f"Error: {error}")
    sys.stderr.write(f"{found.told()}\n")


if __name__ == "__main__":
    main()
