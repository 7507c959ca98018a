"""Hypatia's published Kuiper-630 series, recomputed by our propagation, geometry, link plan and routes.

Source: S. Kassing et al., Exploring the "Internet from space" with Hypatia, IMC 2020; repository snkas/hypatia (MIT).
`kuiper_630.toml` holds the rows.

Hypatia computes with PyEphem, whose Earth turns by UTC. On 2000-01-01 UT1 was 0.355 s ahead, in which the equator turns
by 165 m; Skyfield and we turn it by UT1. So round trips differ by up to 1.6 us.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import timedelta
from functools import cached_property
from importlib.resources import files
from typing import Any

import numpy as np

from isl_emu.arrays import Bools
from isl_emu.files import tomllib
from isl_emu.geometry.elements import Elements
from isl_emu.linkplan.build import SpaceSegment, plan_segments
from isl_emu.linkplan.candidates import laser_candidates
from isl_emu.linkplan.plan import LinkKind, LinkPlan
from isl_emu.linkplan.sightings import View
from isl_emu.routing.forwarding import plan_routes
from isl_emu.routing.paths import NodePath, PathFinder
from isl_emu.scenario.model import GroundStation, LaserLinks
from isl_emu.timebase import TimeGrid
from isl_emu.units import NS_PER_S
from isl_emu.validate.check import Check

GROUP = "Kuiper-630 (Hypatia, IMC 2020)"
GOLDEN: dict[str, Any] = tomllib.loads((files("isl_emu.validate") / "kuiper_630.toml").read_text())
PLANES, SLOTS = GOLDEN["planes"], GOLDEN["slots"]
FIVE_US_MS = 0.005
ONE_TICK_S = 0.1  # the step of the published series
WHOLE_SECONDS = 200

_Planned = tuple[LinkPlan, PathFinder]


class Kuiper:
    """The paths of the published constellation at any time, each from a plan of that one instant."""

    def __init__(self) -> None:
        self.space, terms = _space(), {"min_elevation": "0 deg", "uplink": "1 Gbit/s", "downlink": "1 Gbit/s"}
        self.stations = tuple(
            GroundStation.model_validate({"name": name, "latitude": f"{lat} deg", "longitude": f"{lon} deg", **terms})
            for name, (lat, lon) in GOLDEN["stations"].items()
        )
        self._plans: dict[float, _Planned] = {}

    def path(self, pair: str, t_s: float) -> NodePath | None:
        """The shortest path of a pair such as `manila-dalian` at `t_s` after the epoch."""
        start = GOLDEN["epoch"] + timedelta(milliseconds=round(t_s * 1000))
        if t_s not in self._plans:
            self._plans[t_s] = self._planned(TimeGrid(start, NS_PER_S, 1))
        return _path(self._plans[t_s], pair, 0)

    def paths_by_second(self, pair: str) -> list[NodePath | None]:
        """The shortest path at each whole second of the series."""
        return [_path(self._by_second, pair, k) for k in range(WHOLE_SECONDS)]

    def satellites(self, pair: str, t_s: float) -> list[int]:
        """The satellites of a path; none where there is no path."""
        return satellites_of(self.path(pair, t_s))

    @cached_property
    def _by_second(self) -> _Planned:
        return self._planned(TimeGrid(GOLDEN["epoch"], NS_PER_S, WHOLE_SECONDS))

    def _planned(self, grid: TimeGrid) -> _Planned:
        """A plan and the paths through it."""
        plan = plan_segments(self.space, self.stations, grid, policy=_within_reach)
        ends = range(len(self.space.elements.names), len(plan.nodes.names))
        return plan, PathFinder(plan, plan_routes(plan, destinations=ends))


def checks() -> Iterator[Check]:
    """Every given row of both pairs."""
    kuiper = Kuiper()
    lasers = kuiper.space.lasers
    yield Check(GROUP, "satellites", PLANES * SLOTS, len(kuiper.space.elements.names))
    yield Check(GROUP, "laser links", 2 * PLANES * SLOTS, len(set(zip(lasers.a.tolist(), lasers.b.tolist()))))
    for pair in GOLDEN["rtt_ms"]:
        yield from round_trips(kuiper, pair)
        yield from paths(kuiper, pair)
        found = [satellites_of(path) for path in kuiper.paths_by_second(pair)]
        same = sum(found[t_s] == published_satellites(pair, t_s) for t_s in range(WHOLE_SECONDS))
        yield Check(GROUP, f"{pair} paths equal at whole seconds", WHOLE_SECONDS, same)


def round_trips(kuiper: Kuiper, pair: str) -> Iterator[Check]:
    """The published round trips of a pair."""
    for row in GOLDEN["rtt_ms"][pair]:
        early = row.get("limit_within_tick", False)
        path = kuiper.path(pair, row["t_s"] - ONE_TICK_S * early)
        found_ms = None if path is None else 2 * path.delay_ns / 1e6
        expected_ms = row.get("rtt_ms")
        note = "ours is of 0.1 s earlier: the ground link passes its limit in between" if early else ""
        name = f"{pair} RTT at {row['t_s']:.1f} s"
        yield Check(GROUP, name, expected_ms, found_ms, FIVE_US_MS, "ms", note)


def paths(kuiper: Kuiper, pair: str) -> Iterator[Check]:
    """The published paths: each from its first tick on, and the one before up to two ticks earlier."""
    previous = None
    for row in GOLDEN["paths"][pair]:
        if previous is not None:
            before_s = row["from_s"] - 2 * ONE_TICK_S
            yield _path_check(pair, before_s, previous, kuiper.satellites(pair, before_s))
        previous = row["satellites"]
        yield _path_check(pair, row["from_s"], previous, kuiper.satellites(pair, row["from_s"]))


def satellites_of(path: NodePath | None) -> list[int]:
    """The satellites of a path whose ends are two stations, from the one that was named first."""
    return [] if path is None else list(path.nodes[1:-1])


def published_satellites(pair: str, t_s: float) -> list[int]:
    """The satellites of the published path in force at a time."""
    found: list[int] = [row["satellites"] for row in GOLDEN["paths"][pair] if row["from_s"] <= t_s][-1]
    return found


def _path_check(pair: str, t_s: float, expected: list[int], found: list[int]) -> Check:
    return Check(GROUP, f"{pair} path at {t_s:.1f} s", _as_text(expected), _as_text(found))


def _as_text(satellites: list[int]) -> str:
    return "-".join(map(str, satellites)) or "unreachable"


def _path(planned: _Planned, pair: str, k: int) -> NodePath | None:
    plan, finder = planned
    # a pair's name is its stations' names with a hyphen between, and a station's may hold one
    ends = [(a, b) for a in GOLDEN["stations"] for b in GOLDEN["stations"] if f"{a}-{b}" == pair]
    source, destination = (plan.nodes.index(name) for name in ends[0])
    return finder.path(source, destination, k)


def _space() -> SpaceSegment:
    """The constellation with angles rounded as in a TLE, and +Grid without a shift."""
    plane, slot = (index.ravel() for index in np.indices((PLANES, SLOTS)))
    same = np.ones(PLANES * SLOTS)
    elements = Elements(
        names=tuple(f"p{p:02d}s{s:02d}" for p, s in zip(plane, slot)),
        epoch=GOLDEN["epoch"],
        mean_motion_rad_min=same * GOLDEN["revolutions_per_day"] * 2 * math.pi / 1440,
        eccentricity=same * GOLDEN["eccentricity"],
        inclination_rad=same * math.radians(GOLDEN["inclination_deg"]),
        raan_rad=_as_in_a_tle(plane * 360 / PLANES),
        arg_perigee_rad=0.0 * same,
        mean_anomaly_rad=_as_in_a_tle(slot * 360 / SLOTS + plane % 2 * 360 / (2 * SLOTS)),
    )
    here = plane * SLOTS + slot
    ahead, beside = plane * SLOTS + (slot + 1) % SLOTS, (plane + 1) % PLANES * SLOTS + slot
    # Hypatia's limit is a range: 80 km of grazing altitude on a sphere of another radius than ours
    lasers = LaserLinks.model_validate(
        {"topology": "+grid", "max_range": f"{GOLDEN['longest_laser_link_km']} km", "grazing_altitude": "0 km"}
    )
    kind = np.repeat([LinkKind.INTRA_PLANE, LinkKind.INTER_PLANE], PLANES * SLOTS)
    a, b = np.concatenate([here, here]), np.concatenate([ahead, beside])
    return SpaceSegment(elements, laser_candidates(a, b, kind, lasers))


def _as_in_a_tle(angle_deg: np.ndarray) -> np.ndarray:
    """Degrees rounded to the four decimals of a TLE, in rad."""
    return np.radians(np.round(angle_deg, 4))


def _within_reach(view: View, antennas: int) -> Bools:
    """Hypatia's rule for ground links: all satellites up to a range."""
    del antennas
    within: Bools = view.range_km <= GOLDEN["longest_ground_link_km"]
    return within
