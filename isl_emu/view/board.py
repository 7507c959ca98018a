"""How a run stands, by its events alone: what a terminal and Prometheus show."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from isl_emu.parts.part import Event
from isl_emu.view.sky import Sky

BUSIEST = 200  # directions of links that are told of
LATEST = 200  # questions, faults and changes of links that are remembered

Ends = tuple[str, str]


@dataclass
class Board:
    """What is known of a run, as its events tell it.

    Args:
        state: "building", "live", "paused" or "ended".
        busy: of the busiest directions of links, the share of what they could carry, and bit/s.
        servers: state and queue of each that was told of.
        changed: of links that have changed, whether they are up.
        open: questions that were asked and are not answered, by id.
        latest: what became of the latest ones.
        faults: in force, by what they are called and where.
    """

    title: str
    nodes: int
    links: int
    duration_s: float
    up: set[Ends]
    state: str = "ended"
    now_s: float = 0.0
    rate: float = 0.0
    lateness_ms: float | None = None
    valid: bool | None = None
    verdict: str = ""
    busy: dict[Ends, tuple[float, float]] = field(default_factory=dict)
    servers: dict[str, tuple[str | None, Any]] = field(default_factory=dict)
    changed: dict[Ends, bool] = field(default_factory=dict)
    questions: Counter[str] = field(default_factory=Counter)
    transfers: Counter[tuple[str, str]] = field(default_factory=Counter)
    open: dict[Any, Event] = field(default_factory=dict)
    latest: deque[Event] = field(default_factory=lambda: deque(maxlen=LATEST))
    faults: dict[tuple[str, str], Event] = field(default_factory=dict)
    went_down: dict[Ends, float] = field(default_factory=dict)
    _planned_up: set[Ends] = field(init=False)

    def __post_init__(self) -> None:
        self._planned_up = set(self.up)

    @classmethod
    def of(cls, sky: Sky) -> Board:
        """That of a run which begins, or is over and nothing was told of yet."""
        plan, names = sky.planned.link_plan, sky.planned.nodes
        first = plan.snapshot(0).link
        up = {(names[a], names[b]) for a, b in zip(plan.links.a[first].tolist(), plan.links.b[first].tolist())}
        title = sky.planned.scenario.name
        return cls(title, len(names), len(plan.links.a), sky.duration_s, up)

    def take(self, event: Event) -> None:
        """Take in an event."""
        kind = event["type"]
        if kind in ("hello", "clock"):
            self.now_s, self.state = event["now_s"], event["state"]
            self.rate, self.lateness_ms = event.get("rate", self.rate), event.get("lateness_ms", self.lateness_ms)
        elif kind == "link":
            self._change((event["a"], event["b"]), event["up"], event["t_s"])
        elif kind == "question":
            self._question(event)
        elif kind == "transfer":
            self.transfers[event["kind"], event["phase"]] += 1
        elif kind == "server":
            self.servers[event["node"]] = event["state"], event["queue"]
        elif kind == "fault":
            self._fault(event)
        elif kind == "load":
            self.busy = {(a, b): (ratio, bit_s) for a, b, ratio, bit_s in event["links"]}
        elif kind == "verdict":
            self.valid, self.verdict, self.state = event["valid"], event["text"], "ended"
        if kind not in ("hello", "clock"):
            self.now_s = max(self.now_s, event["t_s"])

    def _change(self, ends: Ends, up: bool, t_s: float) -> None:
        (self._planned_up.add if up else self._planned_up.discard)(ends)
        self._see(ends, t_s)

    def _see(self, ends: Ends, t_s: float) -> None:
        """A link is up if the plan has it up, and nobody has cut it."""
        cut = any([*ends] in event["links"] for event in self.faults.values() if event["how"] in CUTS)
        up = ends in self._planned_up and not cut
        if up == (ends in self.up):
            return
        (self.up.add if up else self.up.discard)(ends)
        self.changed[ends] = up
        if up:
            self.went_down.pop(ends, None)
        else:
            self.went_down[ends] = t_s

    def _question(self, event: Event) -> None:
        self.questions[event["phase"]] += 1
        if event["phase"] in ("done", "failed"):
            self.open.pop(event["id"], None)
            self.latest.append(event)
        else:
            self.open[event["id"]] = event

    def _fault(self, event: Event) -> None:
        key = event["what"], str(event["links"] + event["nodes"])
        if event["phase"] == "struck":
            self.faults[key] = event
        else:
            self.faults.pop(key, None)
        if event["intervention"]:
            for a, b in event["links"]:
                self._see((a, b), event["t_s"])


CUTS = ("cut", "power-off")


def board_of(sky: Sky, events: Iterable[Event]) -> Board:
    """How a run that is over stands at its end; its links' load is the mean of the whole run."""
    board = Board.of(sky)
    for event in events:
        board.take(event)
    plan, names = sky.planned.link_plan, sky.planned.nodes
    if (load := sky.load) is not None:
        mean = load.mean(axis=1)
        for end in np.argsort(-mean, kind="stable")[:BUSIEST].tolist():
            ends = [names[int(plan.links.a[end // 2])], names[int(plan.links.b[end // 2])]]
            _, rows = plan.rows_of_link(end // 2)
            rates = (rows.rate_ab_bit_s, rows.rate_ba_bit_s)[end % 2]
            if mean[end] > 0:
                there, back = ends[:: -1 if end % 2 else 1]
                bit_s = float(mean[end]) * float(rates.mean()) * plan.rate_scale
                board.busy[there, back] = float(mean[end]), bit_s
    return board
