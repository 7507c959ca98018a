"""Why a link of a plan is down at an instant, and when it comes back."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from isl_emu.geometry.elements import constellation_elements
from isl_emu.geometry.sightline import grazing_altitude_km, range_km
from isl_emu.linkplan.build import SpaceSegment, sky_at
from isl_emu.linkplan.candidates import joined_candidates, laser_candidates
from isl_emu.linkplan.constraints import Ephemeris, below_polar_cutoff, clear_of_the_sun, slow_enough
from isl_emu.linkplan.events import LinkState
from isl_emu.linkplan.faults import links_hit
from isl_emu.linkplan.lasers import LaserQuality
from isl_emu.linkplan.plan import LinkKind, LinkPlan
from isl_emu.linkplan.sightings import station_view
from isl_emu.scenario.lasers import LaserTerms
from isl_emu.scenario.model import GroundStation, Scenario

POINTED = {LinkState.SLEWING: "slewing to each other", LinkState.ACQUIRING: "acquiring each other"}
LIMITS = (
    (below_polar_cutoff, "an end is beyond the polar cutoff"),
    (clear_of_the_sun, "dazzled by the Sun"),
    (slow_enough, "an end would have to turn its terminal faster than it can"),
)


def why_down(scenario: Scenario, plan: LinkPlan, link: int, k: int) -> str:
    """All reasons for which a link is down at instant `k`, in words.

    Args:
        scenario: what the plan was made from.
        link: number of a link that is down then.
    """
    state = LinkState(int(plan.events.states(k, len(plan.links.a))[link]))
    if state in POINTED:
        return POINTED[state]
    if state == LinkState.FAULT:
        event, hit = links_hit(plan, plan.faults)
        mine = np.zeros(len(plan.faults.fault), bool)
        mine[event[hit == link]] = True
        cutting = plan.faults.fault[mine & plan.faults.happening(k)]
        return f"cut by the fault {' and '.join(plan.faults.names[fault] for fault in np.unique(cutting))}"
    elements = constellation_elements(scenario)
    space = SpaceSegment(elements, joined_candidates([]), scenario.orbits)
    sky = sky_at(space, plan.grid.start, plan.grid.offsets_ns[k : k + 1])
    a, b, count = int(plan.links.a[link]), int(plan.links.b[link]), len(elements.names)
    if plan.links.kind[link] == LinkKind.GROUND:
        return _why_no_ground_link(scenario.station[b - count], plan, sky.r_km[:, [a]], k, state)
    terms, kind = _terms(scenario, a, b), plan.links.kind[link : link + 1]
    reasons = list(_why_no_laser(scenario, plan, terms, (a, b), kind, sky))
    return ", ".join(reasons) or ("lost a moment ago" if state == LinkState.LOST else "its terminals are not assigned")


def _terms(scenario: Scenario, a: int, b: int) -> LaserTerms:
    """The terms of a laser link: of the shell of both ends, or of what is between their shells."""
    ends = np.cumsum([shell.count for shell in scenario.shell])
    shells = [scenario.shell[int(np.searchsorted(ends, end, side="right"))] for end in (a, b)]
    if shells[0] is shells[1]:
        return shells[0].lasers
    return next(one for one in scenario.inter_shell if set(one.between) == {shell.name for shell in shells})


def _why_no_laser(
    scenario: Scenario, plan: LinkPlan, terms: LaserTerms, ends: tuple[int, int], kind: np.ndarray, sky: Ephemeris
) -> Iterator[str]:
    a, b = (np.array([end]) for end in ends)
    one = laser_candidates(a, b, kind, terms)
    a_km, b_km = sky.r_km[:, a], sky.r_km[:, b]
    distance_km, lowest_km = range_km(a_km, b_km)[0, 0], grazing_altitude_km(a_km, b_km)[0, 0]
    limits = distance_km > one.max_range_km[0], lowest_km < one.grazing_altitude_km[0]
    if limits[0]:
        yield f"out of range ({distance_km:,.0f} km, at most {one.max_range_km[0]:,.0f} km)"
    if limits[1]:
        least_km = one.grazing_altitude_km[0]
        yield f"behind the Earth (the line passes {lowest_km:,.0f} km over it, at least {least_km:g} km are allowed)"
    dark = [words for limit, words in LIMITS if not limit(one, sky, np.ones((1, 1), dtype=bool))[0, 0]]
    yield from dark
    if any(limits) or dark:
        return
    steady = laser_candidates(a, b, kind, terms.model_copy(update={"outages": None}))
    duration_ns = plan.grid.duration_ns
    if not LaserQuality(steady, scenario.seed, duration_ns).possible(sky)[0][0, 0]:
        yield f"too faint for its budget at {distance_km:,.0f} km"
    elif not LaserQuality(one, scenario.seed, duration_ns).possible(sky)[0][0, 0]:
        yield "a fault: it has an outage"


def _why_no_ground_link(station: GroundStation, plan: LinkPlan, r_km: np.ndarray, k: int, state: LinkState) -> str:
    now = plan.grid.start, plan.grid.offsets_ns[k : k + 1]
    if len(station_view(station, r_km, *now, k).k):
        lost = "clouds or rain are in its way"
        return lost if state == LinkState.LOST else "the station's antennas are not assigned to it"
    endless = station.model_copy(update={"max_range_km": None})
    if len(station_view(endless, r_km, *now, k).k):
        return "out of range"
    return "behind the Earth or too low for the station"
