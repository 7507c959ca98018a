"""Who looks at an image: what is known of each computer when it is taken, and policies that choose one.

Contacts, rates and delays are those of the plan, as is known of faults; queues are those that all satellites have then,
as if everybody knew them at once; charge and pace are what the energy model last said.

A policy of a user's own is a function ``place(situation) -> name of a candidate, or None`` that the scenario names as
``package.module:function``. None sends the image itself down.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from isl_emu.scenario.user_functions import user_function
from isl_emu.tables.planned_paths import PlannedPaths
from isl_emu.timebase import TimeGrid
from isl_emu.units import NS_PER_S, seconds_text


class Ways:
    """What the plan says of sending bytes from one node to another.

    Bytes wait where they are while there is no path, and go on with the next one from where they were: as they are
    really sent. Nothing else is thought to be on the links, and headers are neglected.
    """

    def __init__(self, paths: PlannedPaths, grid: TimeGrid):
        self._paths, self._grid = paths, grid

    def next_ns(self, a: str, b: str, t_ns: int) -> int | None:
        """When there is a path, from `t_ns` on; None if not in this run."""
        for k in range(self._grid.instant_at(t_ns), self._grid.count):
            if self._paths.at(a, b, k) is not None:
                return max(t_ns, k * self._grid.step_ns)
        return None

    def there_ns(self, a: str, b: str, t_ns: int, size_byte: int) -> int | None:
        """When bytes that are sent from `t_ns` on are all there; None if not in this run."""
        if a == b:
            return t_ns
        left_bit, step_ns = 8.0 * size_byte, self._grid.step_ns
        for k in range(self._grid.instant_at(t_ns), self._grid.count):
            if path := self._paths.at(a, b, k):
                begin_ns, end_ns = max(t_ns, k * step_ns), (k + 1) * step_ns
                rate_bit_s = self._paths.rate_bit_s(path, k)
                if left_bit * NS_PER_S <= rate_bit_s * (end_ns - begin_ns):
                    return begin_ns + round(left_bit * NS_PER_S / rate_bit_s) + path.delay_ns
                left_bit -= rate_bit_s * (end_ns - begin_ns) / NS_PER_S
        return None

    def ground_ns(self, a: str, stations: Sequence[str], t_ns: int, size_byte: int) -> tuple[int, str] | None:
        """When bytes are on the ground at the earliest, and at which station; None if not in this run."""
        found = [(there, name) for name in stations if (there := self.there_ns(a, name, t_ns, size_byte)) is not None]
        return min(found, default=None)

    def delay(self, a: str, b: str, t_ns: int) -> tuple[int, int] | None:
        """One-way delay and hops of the path at a time; None without one."""
        if a == b:
            return 0, 0
        path = self._paths.at(a, b, self._grid.instant_at(t_ns))
        return None if path is None else (path.delay_ns, path.hops)


@dataclass(frozen=True)
class Candidate:
    """A satellite that may look at the image.

    Args:
        delay_ns: one way from where the image is, with `hops`; None if there is no path now.
        queue: images that it has to look at, or that are on their way to it.
        free_ns: when it has looked at all of them, by the plan and at its full pace.
        there_ns: when all of the image would be there, by the plan; None if not in this run.
        answer_ns: when its answer would be on the ground, by the plan; None if not in this run.
        sunlit: whether it is in the Sun now.
        charge: of its battery, 0..1; None without [[power]].
        pace: the share of its full pace that it is allowed now; 0 while its computer is off.
        spared: whether its battery lasts: with this image looked at, it is above where its computer is slowed.
    """

    satellite: str
    delay_ns: int | None
    hops: int | None
    queue: int
    free_ns: int
    there_ns: int | None
    answer_ns: int | None
    sunlit: bool
    charge: float | None
    pace: float
    spared: bool

    @property
    def fit(self) -> bool:
        """Whether its computer is on, its battery lasts, and its answer comes down in this run."""
        return self.pace > 0.0 and self.spared and self.answer_ns is not None


@dataclass(frozen=True)
class Situation:
    """What is known when an image has been taken.

    Args:
        t_ns: since the start of the run.
        satellite: that has taken it.
        observation: its name in the scenario.
        image_byte: as it is really sent; `answer_byte` likewise.
        work_ns: that looking at it takes at full pace; 0 if nobody says.
        image_ns: when the image itself would be on the ground, by the plan; None if not in this run.
        candidates: by name of the satellite, in node order, at least one.
    """

    t_ns: int
    satellite: str
    observation: str
    image_byte: int
    answer_byte: int
    work_ns: int
    image_ns: int | None
    candidates: tuple[Candidate, ...]


Choice = tuple["str | None", str]  # the satellite, or None for the ground; and why
Policy = Callable[[Situation], "str | None"]


def _fit(situation: Situation) -> tuple[Candidate, ...]:
    """Those that are fit for it; all if none is."""
    return tuple(one for one in situation.candidates if one.fit) or situation.candidates


def on_board(situation: Situation) -> str:
    """Where it was taken."""
    return situation.satellite


def nearest_free(situation: Situation) -> str:
    """The nearest that has nothing to do; if all have, the one with the shortest queue."""

    def order(one: Candidate) -> tuple[int, bool, int]:
        return one.queue, one.delay_ns is None, one.delay_ns or 0

    return min(_fit(situation), key=order).satellite


def earliest_answer(situation: Situation) -> str:
    """The one whose answer is on the ground first, by the plan; of equals the nearest."""

    def order(one: Candidate) -> tuple[bool, int, bool, int]:
        return one.answer_ns is None, one.answer_ns or 0, one.delay_ns is None, one.delay_ns or 0

    return min(_fit(situation), key=order).satellite


def ground(situation: Situation) -> None:
    """Nobody: the image itself goes down."""


OURS: dict[str, Policy] = {
    "on-board": on_board,
    "nearest-free": nearest_free,
    "earliest-answer": earliest_answer,
    "ground": ground,
}


def policy_of(placement: str, where: str) -> Policy:
    """The policy that a scenario names.

    Raises:
        ScenarioError: it is a user's function, and cannot be imported.
    """
    return user_function(placement, f"{where}.placement", 1) if ":" in placement else OURS[placement]


def reason(situation: Situation, chosen: str | None) -> str:
    """Why an image is looked at there, in figures: the answer's time by the plan there, on board, and the image's."""
    return "; ".join(_facts(situation, chosen))


def _facts(situation: Situation, chosen: str | None) -> Iterator[str]:
    by_name = {one.satellite: one for one in situation.candidates}
    names = dict.fromkeys(name for name in (chosen, situation.satellite) if name in by_name)
    for name in names:
        one = by_name[name]
        label = "on board" if name == situation.satellite else name
        yield f"{label}: answer {_time(one.answer_ns)}, {one.queue} waiting"
        if one.pace <= 0.0:
            yield f"{label}: off"
        elif not one.spared:
            yield f"{label}: battery short"
    yield f"image itself {_time(situation.image_ns)}"
    if unfit := sum(not one.fit for one in situation.candidates):
        yield f"{unfit} of {len(situation.candidates)} not fit"


def _time(t_ns: int | None) -> str:
    return "not in this run" if t_ns is None else f"at {seconds_text(round(t_ns, -6))}"
