"""Captures: packets at link ends, written down as they pass, for Wireshark and for programs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict
from functools import partial
from typing import Any

from isl_emu.errors import NetworkError, ScenarioError
from isl_emu.files import write_json
from isl_emu.network.naming import ipv4_address
from isl_emu.parts.activity import Activity, RunProcess
from isl_emu.parts.captures.filters import compile_filter
from isl_emu.parts.captures.listening import BUFFER_BYTE
from isl_emu.parts.captures.recording import JOURNAL, merge_pieces
from isl_emu.parts.captures.results import (
    CAPTURES,
    capture_reasons,
    capture_rows,
    captures_chapter,
    captures_section,
)
from isl_emu.parts.captures.specification import SPECIFICATIONS, specified
from isl_emu.parts.finished_run import ConcludedRun, FinishedRun
from isl_emu.parts.live_run import LiveRun
from isl_emu.parts.part import Asked, Judgement, Pace, Part, Preparation, Source
from isl_emu.runs.clock import RunTimes
from isl_emu.runs.folder import RunFolder
from isl_emu.runs.process import end, start_module
from isl_emu.scenario.captures import Capture, filter_problems
from isl_emu.scenario.model import Scenario
from isl_emu.show.chapter import Chapter

MODULE = "isl_emu.parts.captures.capturer"
PROCESS_BYTE = 256 * 1024 * 1024
BY_HAND = "by-hand"
POLL_S = 0.05


class CapturesPart(Part):
    key = "captures"
    tables = {"captures": CAPTURES}

    def own_byte(self, scenario: Scenario) -> int:
        ears = sum(4 if capture.link else 8 for capture in scenario.capture)
        return PROCESS_BYTE + ears * BUFFER_BYTE if ears else 0

    def checks(self, scenario: Scenario) -> Iterable[Callable[[], object]]:
        addresses = {name: ipv4_address(number) for number, name in enumerate(scenario.node_names)}
        for index, capture in enumerate(scenario.capture):
            yield partial(compile_filter, f"capture[{index}].filter", capture.filter, addresses, capture.snap_byte)

    def prepare(self, source: Source, place: str) -> Preparation:
        if not source.scenario.capture:
            return Preparation()
        wanted = [specified(capture, source.plan).as_json() for capture in source.scenario.capture]
        return Preparation(leave=lambda folder, _: write_json(folder.journal / SPECIFICATIONS, {"captures": wanted}))

    def one_guest(self, source: Source) -> Iterable[str]:
        return ()

    def start(self, live: LiveRun) -> Iterable[Activity]:
        if live.scenario.capture:
            yield CaptureProcess(live)

    def answers(self, live: LiveRun, times: RunTimes) -> Mapping[str, Callable[[Mapping[str, Any], Asked], int]]:
        return {"capture": partial(capture_by_hand, live, times)}

    def gather(self, guests: Sequence[RunFolder]) -> None:
        merge_pieces(guests)

    def conclude(self, run: FinishedRun) -> None:
        if run.has_journal(JOURNAL):
            run.write("captures", CAPTURES, capture_rows(run), run.journal(JOURNAL).lost_lines)

    def judge(self, run: FinishedRun, pace: Pace) -> Judgement:
        rows = run.rows("captures")
        packets, missed = (sum(row[key] for row in rows) for key in ("packets", "dropped"))
        line = "captures", f"{packets:,} packets captured, {missed:,} missed"
        return Judgement(
            {"captures": {"packets": packets, "dropped": missed}} if rows else {},
            tuple(capture_reasons(run, rows)),
            (line,) if rows else (),
        )

    def sections(self, run: FinishedRun, figures: Mapping[str, Any]) -> Iterator[Iterable[str]]:
        if rows := run.rows("captures"):
            yield captures_section(rows)

    def chapters(self, run: ConcludedRun) -> Iterator[Chapter]:
        if rows := run.rows("captures"):
            yield captures_chapter(rows)


class CaptureProcess(RunProcess):
    """The process of a scenario's captures, which hears link ends before instant 0 and is told then when that is.

    Raises:
        WorkloadError: it ended before it was ready, with the last line of its log.
    """

    def __init__(self, live: LiveRun):
        super().__init__("capturer", [MODULE], live.folder.journal)
        with (live.folder.journal / "capturer.log").open("wb") as messages:
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            self._process = start_module(_words(live.folder), **pipes, stderr=messages)
        live.undo.callback(end, [self._process])
        assert self._process.stdout is not None
        with self._process.stdout as said:
            if not said.readline():
                self._process.wait()
                self.check()

    def begin(self, times: RunTimes, ending: ExitStack) -> None:
        assert self._process is not None
        ending.callback(end, [self._process], self.patience_s)
        _tell(self._process, times)


def _words(folder: RunFolder) -> list[str]:
    return [MODULE, "--journal", str(folder.journal), "--part", str(folder.part)]


def _tell(process: subprocess.Popen[bytes], times: RunTimes) -> None:
    """Tell a capturer when the run begins and ends; one that was killed by then hears nothing."""
    assert process.stdin is not None
    with suppress(BrokenPipeError), process.stdin:
        process.stdin.write(json.dumps(asdict(times)).encode() + b"\n")


def capture_by_hand(live: LiveRun, times: RunTimes, request: Mapping[str, Any], asked: Asked) -> int:
    """Write a capture to who asks for it, until it has all, nobody waits any more, or the run ends.

    Raises:
        NetworkError: there is no such node or link.
        ScenarioError: the filter is not understood.
    """
    place, names = request["place"], live.plan.nodes.names
    for name in place:
        if name not in names:
            raise NetworkError(f"capture: {name!r} is asked for, but the net has no such node; see `isl-emu plan`")
    if problems := list(filter_problems("capture: --filter", request["filter"], names)):
        raise ScenarioError(*problems)
    where = {"link": tuple(place)} if len(place) > 1 else {"node": place[0]}
    wish = Capture(name=BY_HAND, **where, filter=request["filter"], packets=request["packets"])
    what = specified(wish, live.plan, request["for_ns"])
    words = [*_words(live.folder), "--by-hand", json.dumps(what.as_json())]
    process = start_module(words, stdin=subprocess.PIPE, stdout=asked.output, stderr=asked.errors)
    _tell(process, times)
    ended = threading.Event()

    def leave() -> None:
        while not ended.is_set():
            if asked.cancelled():
                ended.set()
                os.kill(process.pid, signal.SIGTERM)
            time.sleep(POLL_S)

    threading.Thread(target=leave, name="capture", daemon=True).start()
    status = process.wait()  # without a look at any time: that may stand
    ended.set()
    return status
