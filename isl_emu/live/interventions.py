"""What a user changes on a live run by hand: put in force at once, written down, and taken back in time or when asked.

Each is an intervention: the verdict tells it apart from what the machine distorts. It is written down when it begins,
and its end in a line of its own, so a run that is killed has it too.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from isl_emu.errors import NetworkError
from isl_emu.network.overrides import Override
from isl_emu.network.replay import Replay
from isl_emu.runs.clock import RunClock, RunTimes
from isl_emu.runs.journal import Journal
from isl_emu.units import NS_PER_S


def _nothing() -> None:
    """Nothing else is to be undone."""


@dataclass(frozen=True, eq=False)
class Intervention:
    """One that is in force.

    Args:
        place: the node, or the two nodes whose link it is, as the plan orders them.
        text: what was done, in a few words.
        until_ns: when it ends by itself, ns after instant 0; None if it lasts until it is taken back.
        undo: what is to be done when it ends, beside links.
    """

    number: int
    place: tuple[str, ...]
    text: str
    override: Override | None
    until_ns: int | None
    undo: Callable[[], object] = _nothing

    def __str__(self) -> str:
        until = "" if self.until_ns is None else f", until t = {self.until_ns / NS_PER_S:.3f} s"
        return f"{' - '.join(self.place)}: {self.text}{until}"


class Interventions:
    """Those of one live run; used by many threads.

    Args:
        ended: set when the run is over: nothing is taken back then.
        journal: that of incidents; None in all guests of a run but the first, as they do the same.
    """

    def __init__(
        self, replay: Replay, clock: RunClock, times: RunTimes, ended: threading.Event, journal: Journal | None
    ):
        self._replay, self._clock, self._times, self._ended = replay, clock, times, ended
        self._journal, self._lock, self._numbers = journal, threading.Lock(), count()
        self._in_force: dict[int, Intervention] = {}

    @property
    def in_force(self) -> list[Intervention]:
        """What is in force now, in the order in which it was done."""
        return list(self._in_force.values())

    def begin(
        self,
        place: tuple[str, ...],
        text: str,
        override: Override | None,
        duration_ns: int | None,
        do: Callable[[], object] = _nothing,
        undo: Callable[[], object] = _nothing,
    ) -> int:
        """Put one in force: when that was, ns after instant 0.

        Args:
            do: what is to be done beside links, after these; `undo` the contrary.

        Raises:
            NetworkError: the network refuses it, or the run does not emulate.
        """
        with self._lock:
            t_ns = self._clock.now_ns() - self._times.t0_ns
            if override is not None:
                t_ns = self._replay.override(lambda others: (*others, override))
            do()
            until_ns = None if duration_ns is None else t_ns + duration_ns
            one = Intervention(next(self._numbers), place, text, override, until_ns, undo)
            self._in_force[one.number] = one
            self._note({
                "id": one.number,
                "t_ns": t_ns,
                "t_end_ns": None,
                "kind": "intervention",
                "node": place[0],
                "what": "link" if len(place) > 1 else "node",
                "cause": f"{' - '.join(place)} by hand: {text}",
                "links": [] if override is None else list(override.links),
            })  # fmt: skip
        if until_ns is not None and until_ns < self._times.duration_ns:
            threading.Thread(target=self._expire, args=(one,), name="intervention", daemon=True).start()
        return t_ns

    def end(self, place: tuple[str, ...] | None) -> Sequence[tuple[Intervention, int]]:
        """Take back what is in force at a place, or everywhere: what that was, and when each ended.

        Raises:
            NetworkError: the network refuses it, or the run does not emulate.
        """
        with self._lock:
            return [(one, self._take_back(one)) for one in self.in_force if place in (None, one.place)]

    def _expire(self, one: Intervention) -> None:
        assert one.until_ns is not None
        if self._clock.wait_until_ns(self._times.t0_ns + one.until_ns, self._ended):
            return
        with self._lock:
            if one.number in self._in_force:
                try:
                    self._take_back(one)
                except NetworkError:
                    if not self._ended.is_set():
                        raise

    def _take_back(self, one: Intervention) -> int:
        t_ns = self._clock.now_ns() - self._times.t0_ns
        if one.override is not None:
            t_ns = self._replay.override(lambda others: tuple(other for other in others if other is not one.override))
        threading.Thread(target=one.undo, name="mending", daemon=True).start()  # it may take its time
        del self._in_force[one.number]
        self._note({"id": one.number, "t_end_ns": t_ns})
        return t_ns

    def _note(self, record: Mapping[str, Any]) -> None:
        if self._journal is not None:
            self._journal.append(record)
