"""Handover policies: which of the satellites in view a station is linked to.

A policy is a function of what a station sees and how many antennas it has; it returns which sightings become links.
What an operator's scheduler does is in `scheduler`. To add a policy: a function here, a line in `POLICIES` (and in
`AT_ONCE` if it is one of these), and its name among the values of `handover` in `scenario/ground.py`.

`overlap` is for how many instants a new link and the one that it replaces are both up (make before break). With an
overlap one antenna is kept for handovers, so `antennas` - 1 links are up steadily; without, `antennas` are.

A satellite that is known to be dead is not chosen, and is left as soon as that is known: nobody sees it coming.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from isl_emu.arrays import Bools, Ints
from isl_emu.linkplan.sightings import Passes, View, find_passes
from isl_emu.scenario.model import GroundStation

NEVER_K = 1 << 62

GroundPolicy = Callable[[View, int], np.ndarray]
"""From what a station sees and how many antennas it has: which sightings become links, bool (V,)."""


def highest_elevation(view: View, antennas: int, overlap: int = 0) -> np.ndarray:
    """Each instant's highest satellites; of equally high ones the one with the lower index.

    Without an overlap the choice depends on nothing before: a plan that starts later agrees with the rest of one that
    starts earlier. With one antenna the link jumps when another satellite rises above the current one. With two or
    more and no overlap each has its own link, and a satellite has been the second highest before it is the highest.
    With an overlap, a satellite that is no longer among the highest stays linked for so many instants more.
    """
    if view.avoided is not None:
        chosen, alive = np.zeros(len(view.k), dtype=bool), ~view.avoided
        chosen[alive] = highest_elevation(replace(view.only(alive), avoided=None), antennas, overlap)
        return chosen
    order = np.lexsort((view.satellite, -view.elevation_rad, view.k))
    steady = _first_of_each_instant(view.k, order, antennas - (overlap > 0))
    if not overlap:
        return steady
    since = _instants_since(view, steady)
    order = np.lexsort((view.satellite, since, view.k))
    return _first_of_each_instant(view.k, order, antennas) & (since <= overlap)


def longest_contact(view: View, antennas: int, overlap: int = 0) -> np.ndarray:
    """The satellite that stays in view longest from now, kept until it sets; then again.

    Of equals the highest, then the one with the lower index.
    """
    passes = find_passes(view)
    return _kept(view, passes, antennas, overlap, passes.set_k[passes.of_sighting])


def least_change(view: View, antennas: int, overlap: int = 0) -> np.ndarray:
    """The current satellite until it sets, then the highest at that moment."""
    return _kept(view, find_passes(view), antennas, overlap, view.elevation_rad)


def every_visible(view: View, antennas: int) -> np.ndarray:
    """All satellites in view, whatever the number of antennas; for studies of what geometry alone allows."""
    del antennas
    return np.ones(len(view.k), dtype=bool)


POLICIES = {
    "highest-elevation": highest_elevation,
    "longest-contact": longest_contact,
    "least-change": least_change,
    "follow": highest_elevation,  # of those that it may follow
}
AT_ONCE = {"highest-elevation"}  # policies whose choice at an instant depends on nothing but that instant


def looks_ahead(station: GroundStation) -> bool:
    """Whether the station's choice at an instant depends on others, and on when satellites set."""
    return station.handover not in AT_ONCE or station.make_before_break_ns > 0


def station_policy(station: GroundStation, step_ns: int) -> GroundPolicy:
    """The policy of a station, with its overlap in whole steps; acquiring the new link is part of the overlap."""
    policy = POLICIES[station.handover]
    if not station.make_before_break_ns:
        return policy
    times_ns = station.make_before_break_ns, station.acquisition_ns
    return partial(policy, overlap=sum(steps(time_ns, step_ns) for time_ns in times_ns))


def steps(duration_ns: int, step_ns: int) -> int:
    """How many steps cover a duration."""
    return -(-duration_ns // step_ns)


def carrying(view: View, antennas: int, gap: int, acquisition: int) -> np.ndarray:
    """Which of the chosen sightings carry data: those after the antenna has been pointed and the link acquired.

    Each satellite gets the antenna that has been idle longest. Pointing takes `gap` instants from when the antenna left
    its last satellite; acquisition begins when it points at the new one and that is chosen. What is chosen at instant 0
    is taken to be tracked already.

    Args:
        view: the chosen sightings only.
        antennas: how many the station has; a policy that chose more is not limited here.
        gap: instants.
        acquisition: instants.

    Returns:
        bool (V,).
    """
    result = np.ones(len(view.k), dtype=bool)
    if not gap and not acquisition:
        return result
    passes = find_passes(view)
    free_k = [-(1 << 62)] * antennas  # a heap: when each antenna left its last satellite
    for q in np.lexsort((passes.first[:-1], passes.start_k)):
        start_k = int(passes.start_k[q])
        idle_since_k = heapq.heappop(free_k) if free_k and free_k[0] <= start_k else start_k
        heapq.heappush(free_k, int(passes.end_k[q]))
        if start_k > 0:
            lost = max(start_k, idle_since_k + gap) + acquisition - start_k
            first, end = passes.first[q], passes.first[q + 1]
            result[passes.order[first : min(first + lost, end)]] = False
    return result


def _first_of_each_instant(k: np.ndarray, order: np.ndarray, count: int) -> np.ndarray:
    """The `count` sightings of each instant that come first in `order`, which goes by instant; bool (V,)."""
    ordered_k = k[order]
    place = np.arange(len(order)) - np.searchsorted(ordered_k, ordered_k, side="left")
    chosen = np.zeros(len(order), dtype=bool)
    chosen[order] = place < count
    return chosen


def _instants_since(view: View, chosen: np.ndarray) -> np.ndarray:
    """For each sighting, how many instants ago it was last chosen in the same pass; very many if never; int64 (V,)."""
    never = 1 << 40
    passes = find_passes(view)
    place = np.arange(len(passes.order))
    latest = np.maximum.accumulate(np.where(chosen[passes.order], place, -1))
    start = np.repeat(passes.first[:-1], np.diff(passes.first))
    since = np.empty(len(place), dtype=np.int64)
    since[passes.order] = np.where(latest >= start, place - latest, never)
    return since


def _kept(view: View, passes: Passes, antennas: int, overlap: int, merit: np.ndarray) -> np.ndarray:
    """The satellites of most `merit`, each kept until it sets.

    Every steady link wakes up when it needs its next satellite: `overlap` instants before the current one sets. Only
    satellites that set later than the current one are taken before it has set, and only if the antenna kept for
    handovers is free. Where there is nothing to take, it waits for the next rise.
    """
    chosen = np.zeros(len(view.k), dtype=bool)
    avoided = np.zeros(len(view.k), dtype=bool) if view.avoided is None else view.avoided
    rises_k = np.unique(np.concatenate([passes.start_k, _revivals_k(view, passes, avoided)]))
    taken_until_k = np.full(len(passes.start_k), -1, dtype=np.int64)
    spare_free_k = 0
    links = antennas - (overlap > 0)
    waking = [(0, link, 0.0) for link in range(links)]  # instant, link, when its satellite sets
    dead_k = [NEVER_K] * links  # when the satellite of each is known to be dead; used only from then on
    while waking:
        k, link, set_k = heapq.heappop(waking)
        end_k = min(math.ceil(set_k), dead_k[link])
        if spare_free_k > k < end_k:
            heapq.heappush(waking, (min(spare_free_k, end_k), link, set_k))
        elif (best := _best(view, passes, k, merit, taken_until_k, set_k if k < end_k else -1.0)) is not None:
            spare_free_k = end_k if k < end_k else spare_free_k
            begin = passes.first[best] + k - passes.start_k[best]
            ahead = passes.order[begin : passes.first[best + 1]]
            lives = int(np.argmax(np.append(avoided[ahead], True)))
            chosen[ahead[:lives]] = True
            dead_k[link] = taken_until_k[best] = k + lives if lives < len(ahead) else NEVER_K
            wake_k = max(k + 1, math.ceil(passes.set_k[best]) - overlap)
            heapq.heappush(waking, (min(wake_k, dead_k[link]), link, float(passes.set_k[best])))
        elif (next_k := _next_chance(rises_k, k, end_k)) is not None:
            heapq.heappush(waking, (next_k, link, set_k))
    return chosen


def _revivals_k(view: View, passes: Passes, avoided: Bools) -> Ints:
    """The instants at which satellites that were avoided in a pass are so no longer."""
    before, now = passes.order[:-1], passes.order[1:]
    again = avoided[before] & ~avoided[now] & (passes.of_sighting[before] == passes.of_sighting[now])
    revivals_k: Ints = view.k[now[again]]
    return revivals_k


def _next_chance(rises_k: np.ndarray, k: int, end_k: int) -> int | None:
    """The first instant after `k` at which a satellite rises or the current one has set; None if there is none."""
    after = np.searchsorted(rises_k, k, side="right")
    chances_k = [int(rise_k) for rise_k in rises_k[after : after + 1]] + [end_k] * (k < end_k)
    return min(chances_k, default=None)


def _best(
    view: View, passes: Passes, k: int, merit: np.ndarray, taken_until_k: Ints, sets_after_k: float
) -> int | None:
    """The pass of most merit at instant `k` that is not taken, is not of a satellite to avoid, and sets after
    `sets_after_k`; of equals the highest."""
    sightings = np.arange(*np.searchsorted(view.k, (k, k + 1)))
    found = passes.of_sighting[sightings]
    free = (taken_until_k[found] <= k) & (passes.set_k[found] > sets_after_k)
    if view.avoided is not None:
        free &= ~view.avoided[sightings]
    if not free.any():
        return None
    sightings = sightings[free]
    order = np.lexsort((view.satellite[sightings], -view.elevation_rad[sightings], -merit[sightings]))
    return int(passes.of_sighting[sightings[order[0]]])
