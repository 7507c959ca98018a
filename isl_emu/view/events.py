"""What happens in a run, as events for who looks on: JSON records in order of time, the same of a live run and of one
that is over. docs/stream.md describes each kind.

Links change and faults strike as the plan has it, when the replay put it in force. All else the parts of a run tell,
each of its own tables and journals (`Part.events`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from isl_emu.files import read_json
from isl_emu.linkplan.contacts import find_contacts
from isl_emu.linkplan.fault_events import FaultThing
from isl_emu.linkplan.faults import links_hit
from isl_emu.parts.finished_run import ConcludedRun
from isl_emu.parts.part import Event
from isl_emu.parts.registry import PARTS
from isl_emu.planned import PlannedNetwork
from isl_emu.routing.forwarding import read_routes
from isl_emu.routing.paths import PathFinder
from isl_emu.runs.folder import RunFolder
from isl_emu.runs.journal import INCIDENTS_JOURNAL, INSTANTS_JOURNAL
from isl_emu.units import NS_PER_MS, NS_PER_S

MOST_TEXT = 4_000  # characters of what somebody wrote: questions, answers, sentences
MOST_PATHS = 50_000  # that are remembered

Way = Callable[[str, str, int], "list[str] | None"]
"""The planned path from one node to another at an instant: the names on it; None without any."""


class PlannedEvents:
    """The changes of links and the faults of a plan, by the instant at which they are due."""

    def __init__(self, planned: PlannedNetwork):
        self._planned, plan = planned, planned.link_plan
        contacts, step_ns = find_contacts(plan), plan.grid.step_ns
        changes = [
            np.stack([edge // step_ns, contacts.link, np.full(len(edge), up)], axis=1)
            for edge, up in ((contacts.start_ns, 1), (contacts.end_ns, 0))
        ]
        every = np.concatenate(changes)
        self._changes = every[np.lexsort([every[:, 1], every[:, 0]])]
        self._at = np.searchsorted(self._changes[:, 0], np.arange(plan.grid.count + 1))
        faults = plan.faults
        self._of_link, self._hit = links_hit(plan, faults)
        self._struck, self._mended = (np.argsort(k, kind="stable") for k in (faults.k_from, faults.k_until))

    def at(self, k: int, done_ns: int) -> Iterator[Event]:
        """What instant `k` changed, which was in force at `done_ns`; links that are up at first are no change."""
        plan, names = self._planned.link_plan, self._planned.nodes
        t_s, faults = max(done_ns, k * plan.grid.step_ns) / NS_PER_S, plan.faults
        for order, edges, phase in (
            (self._mended, faults.k_until, "mended"),
            (self._struck, faults.k_from, "struck"),
        ):
            first, last = np.searchsorted(edges[order], [k, k + 1])
            for event in order[first:last].tolist():
                yield self._fault(event, phase, t_s)
        for _, link, up in self._changes[self._at[k] : self._at[k + 1]].tolist() if k else ():
            a, b = (names[int(ends[link])] for ends in (plan.links.a, plan.links.b))
            event = {"t_s": t_s, "type": "link", "a": a, "b": b, "up": bool(up), "delay_ms": None, "rate_mbit_s": None}
            if up:
                row, _ = plan.rows_of(k, [link])
                event["delay_ms"] = int(row.delay_ns[0]) / NS_PER_MS
                event["rate_mbit_s"] = int(row.rate_ab_bit_s[0]) * plan.rate_scale / 1e6
            yield event

    def _fault(self, event: int, phase: str, t_s: float) -> Event:
        plan, names = self._planned.link_plan, self._planned.nodes
        fault, target = int(plan.faults.fault[event]), int(plan.faults.target[event])
        at_node = plan.faults.thing[event] in (FaultThing.NODE, FaultThing.SERVER)
        hit = self._hit[self._of_link == event].tolist()
        return {
            "t_s": t_s,
            "type": "fault",
            "what": plan.faults.names[fault],
            "phase": phase,
            "how": plan.faults.effects[fault],
            "links": [[names[int(plan.links.a[link])], names[int(plan.links.b[link])]] for link in hit],
            "nodes": [names[target]] if at_node else [],
            "intervention": False,
        }


def planned_ways(planned: PlannedNetwork, folder: RunFolder | None = None) -> Way:
    """The planned paths, looked up once each.

    Args:
        folder: of a live run, whose routes are there already.
    """
    finder = None
    if folder is not None and folder.routes.exists():
        finder = PathFinder(planned.link_plan, read_routes(folder.routes, planned.link_plan))

    @lru_cache(MOST_PATHS)
    def way(a: str, b: str, k: int) -> list[str] | None:
        if finder is None:
            found = planned.path(a, b, k)
            return list(found.nodes) if found else None
        path = finder.path(planned.index(a), planned.index(b), k)
        return [planned.nodes[node] for node in path.nodes] if path else None

    return way


class Telling:
    """Completes what parts say, and leaves out what says nothing new.

    Args:
        way: finds the path of what goes from one node to another.
    """

    def __init__(self, planned: PlannedNetwork, way: Way):
        self._planned, self._way = planned, way
        self._nodes, self._servers = set(planned.nodes), dict[str, tuple[Any, Any]]()

    def told(self, events: Iterable[Event]) -> Iterator[Event]:
        """The events, with paths, of nodes that there are."""
        for event in events:
            more: Event = {}
            if event["type"] == "server":
                state, queue = self._servers.get(event["node"], (None, None))
                new = event.get("state") or state, queue if event.get("queue") is None else event["queue"]
                if new == (state, queue):
                    continue
                self._servers[event["node"]] = new
                more = {"state": new[0], "queue": new[1]}
            elif "path" in event and event["path"] is None and {event["from"], event["to"]} <= self._nodes:
                k = self._planned.link_plan.grid.instant_at(max(round(event["t_s"] * NS_PER_S), 0))
                more = {"path": self._way(event["from"], event["to"], k)}
            told = {**event, **more}
            yield {key: value[:MOST_TEXT] if isinstance(value, str) else value for key, value in told.items()}


def incident_events(record: Mapping[str, Any], planned: PlannedNetwork) -> Iterator[Event]:
    """What a line of the journal of incidents, or a row of its table, says: somebody's changes, and what died."""
    cause, node, names, ends = str(record.get("cause")), record.get("node"), planned.nodes, planned.link_plan.links
    place, _, how = cause.partition(" by hand: ")
    if record.get("kind") != "intervention":
        yield {"t_s": record["t_ns"] / NS_PER_S, "type": "server", "node": node, "state": f"died: {cause}"}
        return
    links: list[list[str]] = []
    if record.get("what") == "link" and how:
        links = [place.split(" - ")]
    elif how == "power-off" and node in names:
        number = names.index(node)
        own = np.flatnonzero((ends.a == number) | (ends.b == number)).tolist()
        links = [[names[int(ends.a[link])], names[int(ends.b[link])]] for link in own]
    fault: Event = {
        "type": "fault",
        "what": cause,
        "how": how or cause,
        "links": links,
        "nodes": [node] if record.get("what") == "node" else [],
        "intervention": True,
    }
    yield {"t_s": record["t_ns"] / NS_PER_S, **fault, "phase": "struck"}
    if record.get("t_end_ns") is not None:
        yield {"t_s": record["t_end_ns"] / NS_PER_S, **fault, "phase": "mended"}


def verdict_event(folder: RunFolder, t_s: float) -> Event | None:
    """The verdict of a run that is over."""
    if (found := read_json(folder.fidelity)) is None:
        return None
    valid, reasons = found.get("verdict") == "valid", found.get("reasons") or []
    text = f"{str(found.get('verdict')).upper()}{': ' if reasons else ''}{'; '.join(map(str, reasons))}"
    return {"t_s": t_s, "type": "verdict", "valid": valid, "text": text[:MOST_TEXT]}


def events_of(planned: PlannedNetwork, run: ConcludedRun | None) -> list[Event]:
    """All events of a run that is over, or of a plan alone, in order of time."""
    found: list[Event] = []
    due = PlannedEvents(planned)
    if run is None:
        grid = planned.link_plan.grid
        for k in range(grid.count):
            found += due.at(k, k * grid.step_ns)
        return found
    telling = Telling(planned, planned_ways(planned))
    ended_ns = (read_json(run.folder.fidelity) or {}).get("ended_ns") or planned.link_plan.grid.duration_ns
    for row in run.rows(INSTANTS_JOURNAL):
        found += due.at(row["k"], row["t_done_ns"])
    for row in run.rows(INCIDENTS_JOURNAL):
        found += incident_events(row, planned)
    for part in PARTS:
        for table in part.watched:
            columns = {**part.tables, **part.lines}[table].names  # an older run may not have all
            for row in run.rows(table):
                found += part.events(table, {**dict.fromkeys(columns), **row})
    found.sort(key=lambda event: event["t_s"])
    told = list(telling.told(found))
    verdict = verdict_event(run.folder, ended_ns / NS_PER_S)
    return told + ([verdict] if verdict else [])
