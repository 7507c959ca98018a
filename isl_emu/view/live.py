"""The events of a live run, read from its journals while they grow, by a process beside it.

The run does not know that somebody looks on. Its journals are those that it writes anyway, and it is asked for nothing,
but once in a while, when they say nothing new, whether it stands.
"""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, BinaryIO

from isl_emu.errors import MachineError
from isl_emu.live.control import ask, find_live_run
from isl_emu.parts.part import Event, Part
from isl_emu.parts.registry import PARTS
from isl_emu.runs.journal import INCIDENTS_JOURNAL, INSTANTS_JOURNAL, LINKS_JOURNAL
from isl_emu.units import NS_PER_MS, NS_PER_S
from isl_emu.view.board import BUSIEST
from isl_emu.view.events import PlannedEvents, Telling, incident_events, planned_ways, verdict_event
from isl_emu.view.sky import Sky
from isl_emu.view.tail import Tail

CLOCK_S = 0.5  # of the wall, between two events that tell the time
SILENT_S = 3.0  # of the wall: then the run is asked if it stands
ASTRAY_S = 3600.0  # emulated, before the start or after the end of a run: what is farther away is no event of it
CONCLUDING_S = 300.0  # of the wall: so long a run may take to be built, and its results to be made
RATE_S = 2.0  # of the wall: over which the pace of exact time is taken
CAPTURE_NS = 10 * NS_PER_S
CAPTURES = "captures"  # of the run's folder
ACTS: Mapping[str, Callable[[list[str]], dict[str, Any]]] = {
    "pause": lambda place: {"at_ns": None},
    "resume": lambda place: {"until_ns": None},
    "stop": lambda place: {"at_ns": None},
    "fault": lambda place: {
        "place": place,
        "for_ns": None,
        **({"changes": {"cut": True}} if len(place) > 1 else {"effect": "power-off"}),
    },
    "restore": lambda place: {"place": place},
    "capture": lambda place: {"place": place, "filter": "", "packets": None, "for_ns": CAPTURE_NS},
}
"""What is asked of a run, as `isl-emu VERB` does, by the nodes that are named."""


NESTED = ("path", "links", "nodes")  # what of an event is a list; all else is a word or a number


def _check(event: Event, duration_s: float) -> None:
    """Raise a ValueError if an event is none that could be: text and numbers, at a time of the run."""
    json.dumps(event, allow_nan=False)
    plain = all(
        value is None or isinstance(value, (str, int, float)) for key, value in event.items() if key not in NESTED
    )
    path = event.get("path") or []
    named = isinstance(path, list) and all(isinstance(name, str) for name in path)
    if not (plain and named and abs(event["t_s"]) < duration_s + ASTRAY_S):
        raise ValueError(event["type"])


class LiveEvents:
    """What a live run does, told whenever it is asked.

    Args:
        sky: of the run.
        wall_s: the time here.
    """

    def __init__(self, sky: Sky, wall_s: Callable[[], float] = time.monotonic):
        assert sky.folder is not None
        self._sky, self._folder, self._wall_s = sky, sky.folder, wall_s
        self._due = PlannedEvents(sky.planned)
        self._telling: Telling | None = None
        journals = [name for part in PARTS for name in part.watched_live]
        self._tails = {name: self._tail(f"{name}.jsonl") for name in (*journals, INCIDENTS_JOURNAL, INSTANTS_JOURNAL)}
        self._counters = self._tail(f"{LINKS_JOURNAL}.arrow")
        self._sent: dict[int, tuple[int, int]] = {}  # of each link end: when it was counted, and how many bytes
        self._busy: dict[int, tuple[int, tuple[str, str, float, int]]] = {}  # the same: when, and how busy it was
        self._interventions: dict[Any, dict[str, Any]] = {}
        self._seen: list[tuple[float, float]] = []  # when instants were in force: the wall's time, and the run's
        self._told_s = self._news_s = self._met_s = wall_s()
        self.state, self._lateness_ms, self._latest_k = "building", 0.0, -1

    def _tail(self, name: str) -> Tail:
        return Tail(self._folder.journal, name)

    @property
    def now_s(self) -> float:
        """The emulated time: that of the latest instant, and what has passed since if it goes on evenly."""
        if not self._seen:
            return 0.0
        seen_s, t_s = self._seen[-1]
        step_s = self._sky.planned.link_plan.grid.step_ns / NS_PER_S
        passed_s = (self._wall_s() - seen_s) * self.rate if self.state == "live" else 0.0
        return min(t_s + min(passed_s, step_s), self._sky.duration_s)

    @property
    def rate(self) -> float:
        """Emulated seconds in one of the wall, lately."""
        if self.state != "live" or len(self._seen) < 2:
            return 0.0
        (first_s, from_s), (last_s, until_s) = self._seen[0], self._seen[-1]
        return (until_s - from_s) / max(last_s - first_s, 1e-3)

    def hello(self) -> Event:
        """What who comes is told first."""
        return {"type": "hello", "format": 1, "now_s": self.now_s, "state": self.state}

    def poll(self) -> list[Event]:
        """What has happened since, about in order of time; empty if nothing has."""
        found = list(self._new())
        if found:
            self._news_s = self._wall_s()
        elif self.state in ("live", "paused") and self._wall_s() - self._news_s > SILENT_S:
            self._ask_state()
        found.sort(key=lambda event: event["t_s"])
        if (verdict := verdict_event(self._folder, self.now_s)) is not None:
            found += [*self._load(), {**verdict, "t_s": self.now_s}]
            self.state = "ended"
        if self._wall_s() - self._told_s >= CLOCK_S or verdict is not None:
            self._told_s = self._wall_s()
            found.append({
                "t_s": self.now_s, "type": "clock", "now_s": self.now_s, "rate": round(self.rate, 3),
                "state": self.state, "lateness_ms": self._lateness_ms,
            })  # fmt: skip
        return found

    def _new(self) -> Iterator[Event]:
        instants = self._tails[INSTANTS_JOURNAL].lines()
        if instants and self._telling is None:
            self._telling = Telling(self._sky.planned, planned_ways(self._sky.planned, self._folder))
        for record in instants:
            yield from self._guarded(self._instant, record)
        if instants:
            self._pass()
        for record in self._tails[INCIDENTS_JOURNAL].lines():
            yield from self._guarded(self._incident, record)
        if self._telling is None:
            return
        for part in PARTS:
            for name in part.watched_live:
                for record in self._tails[name].lines():
                    yield from self._guarded(partial(self._part, self._telling, part, name), record)
        yield from self._load()

    @staticmethod
    def _part(telling: Telling, part: Part, journal: str, record: dict[str, Any]) -> Iterator[Event]:
        return telling.told(part.live_events(journal, record))

    def _guarded(self, tell: Callable[[dict[str, Any]], Any], record: dict[str, Any]) -> list[Event]:
        """What a record says; none if it is not as our own processes write it."""
        try:
            events = list(tell(record))
            for event in events:
                _check(event, self._sky.duration_s)
        except Exception:  # whatever it is, somebody else has written there
            return []
        return events

    def _instant(self, record: dict[str, Any]) -> Iterator[Event]:
        k, done_ns = int(record["k"]), int(record["done_ns"])
        if not 0 <= k < self._sky.planned.link_plan.grid.count:
            return
        self._latest_k = max(self._latest_k, k)
        self._lateness_ms = max(done_ns - int(record["planned_ns"]), 0) / NS_PER_MS if k else 0.0
        yield from self._due.at(k, done_ns)

    def _pass(self) -> None:
        """Take the pace at which emulated time passes, now that another instant is in force."""
        if self._latest_k < 0:
            return
        wall_s, t_s = self._wall_s(), self._latest_k * self._sky.planned.link_plan.grid.step_ns / NS_PER_S
        if self.state in ("building", "paused"):
            self.state, self._seen = "live", []
        self._seen.append((wall_s, t_s))
        while len(self._seen) > 2 and wall_s - self._seen[1][0] > RATE_S:
            self._seen.pop(0)

    def _incident(self, record: dict[str, Any]) -> Iterator[Event]:
        """The end of an intervention comes in a line of its own, which has but its number."""
        if "kind" in record:
            self._interventions[record.get("id")] = record
            yield from incident_events(record, self._sky.planned)
        elif (begun := self._interventions.pop(record["id"], None)) is not None:
            whole = list(incident_events({**begun, "t_end_ns": record["t_end_ns"]}, self._sky.planned))
            yield from whole[1:]

    def _load(self) -> Iterator[Event]:
        """How busy the busiest directions of links were between the last two samples of each."""
        plan, names = self._sky.planned.link_plan, self._sky.planned.nodes
        interval_ns = self._sky.planned.scenario.counters.interval_ns
        for batch in self._counters.batches():
            columns = {name: batch.column(name).to_numpy() for name in ("t_ns", "link", "end", "sent_byte")}
            rows = list(zip(*(column.tolist() for column in columns.values())))
            if not rows:
                continue
            t_ns = rows[0][0]
            snapshot = plan.snapshot(plan.grid.instant_at(max(t_ns - 1, 0)))
            place = {link: row for row, link in enumerate(snapshot.link.tolist())}
            for now_ns, link, end, sent_byte in rows:
                before_ns, before_byte = self._sent.get(2 * link + end, (0, 0))
                self._sent[2 * link + end] = now_ns, sent_byte
                since_ns = max(before_ns, (now_ns - 1) // interval_ns * interval_ns)
                if now_ns <= since_ns or (row := place.get(link)) is None or sent_byte <= before_byte:
                    continue
                bit_s = (sent_byte - before_byte) * 8 * NS_PER_S / (now_ns - since_ns)
                could = (snapshot.rate_ab_bit_s, snapshot.rate_ba_bit_s)[end][row] * plan.rate_scale
                ends = names[int(plan.links.a[link])], names[int(plan.links.b[link])]
                busy = ends[end], ends[1 - end], round(min(bit_s / could, 1.0), 9), round(bit_s)
                self._busy[2 * link + end] = now_ns, busy
            latest = [busy for at_ns, busy in self._busy.values() if at_ns > t_ns - interval_ns]
            latest.sort(key=lambda one: -one[2])
            yield {"t_s": t_ns / NS_PER_S, "type": "load", "links": latest[:BUSIEST]}

    def _ask_state(self) -> None:
        """Whether it stands: for nothing came for a while."""
        self._news_s = self._wall_s()
        ok, text = self.act({"verb": "status"})
        if ok:
            self.state = "paused" if text.startswith("paused") else "live"

    def act(self, request: Mapping[str, Any], target: BinaryIO | None = None) -> tuple[bool, str]:
        """Ask the run for something, as a command does: whether it did so, and what it says.

        Args:
            target: gets what is no message.
        """
        said = io.BytesIO()
        try:
            run, folder = find_live_run(self._folder.path)
            done = ask(run, folder, request, (target or said).write, said.write) == 0
        except MachineError as error:
            return False, str(error)
        return done, said.getvalue().decode(errors="replace").strip()

    def _capture(self, request: Mapping[str, Any]) -> tuple[bool, str]:
        """Packets of a place into a new file of the run's folder; what is in the guest leads it nowhere else."""
        name = f"{'-'.join(request['place'])}-at-{self.now_s:.3f}s.pcapng"
        with suppress(FileExistsError):
            (self._folder.path / CAPTURES).mkdir()
        try:
            at = os.open(self._folder.path / CAPTURES, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError as error:
            return (
                False,
                f"{CAPTURES}: cannot be written ({error.strerror}), but packets go there; remove what is there",
            )
        try:
            new = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644, dir_fd=at)
            with os.fdopen(new, "wb") as target:
                done, text = self.act(request, target)
            if not done:
                os.unlink(name, dir_fd=at)
        except OSError as error:
            return False, f"{CAPTURES}/{name}: cannot be written ({error.strerror}), but packets go there; try again"
        finally:
            os.close(at)
        return done, f"{CAPTURES}/{name}: {text}" if done else text

    def press(self, verb: str, place: list[str]) -> tuple[bool, str]:
        """What a button does: that verb, at a link's two nodes or at one node."""
        request = {"verb": verb, **ACTS[verb](place)}
        done = self._capture(request) if verb == "capture" else self.act(request)
        if done[0] and verb in ("pause", "resume"):
            self.state, self._seen = ("paused", self._seen[-1:]) if verb == "pause" else ("live", self._seen[-1:])
            self._news_s = self._wall_s()
        return done

    @property
    def gone(self) -> bool:
        """Whether the run is over, or is no more and there is no verdict either."""
        if self.state == "ended":
            return True
        try:
            find_live_run(self._folder.path)
        except MachineError:  # not yet, or no more: its results are being made
            return self._wall_s() - self._met_s > CONCLUDING_S
        self._met_s = self._wall_s()
        return False
