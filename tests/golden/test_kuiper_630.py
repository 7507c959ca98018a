"""Hypatia's published Kuiper-630 series, recomputed by our own propagation, geometry, link plan and routes."""

from __future__ import annotations

import math
import sys
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from isl_emu.geometry.elements import Elements
from isl_emu.linkplan.build import SpaceSegment, plan_segments
from isl_emu.linkplan.candidates import laser_candidates
from isl_emu.linkplan.plan import LinkKind
from isl_emu.routing.forwarding import plan_routes
from isl_emu.routing.paths import PathFinder
from isl_emu.scenario.model import GroundStation, LaserLinks
from isl_emu.timebase import TimeGrid

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

GOLDEN = tomllib.loads((Path(__file__).parent / "kuiper_630.toml").read_text())
PLANES, SLOTS = GOLDEN["planes"], GOLDEN["slots"]
FIVE_US_MS = 0.005
ONE_TICK_S = 0.1  # the step of the published series


def _as_in_a_tle(angle_deg: np.ndarray) -> np.ndarray:
    """Degrees rounded to the four decimals of a TLE, in rad."""
    return np.radians(np.round(angle_deg, 4))


def _space() -> SpaceSegment:
    plane, slot = (index.ravel() for index in np.indices((PLANES, SLOTS)))
    same = np.ones(PLANES * SLOTS)
    elements = Elements(
        names=tuple(f"p{p:02d}s{s:02d}" for p, s in zip(plane, slot, strict=True)),
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
    lasers = LaserLinks.model_validate(
        {"topology": "+grid", "max_range": f"{GOLDEN['longest_laser_link_km']} km", "grazing_altitude": "0 km"}
    )
    kind = np.repeat([LinkKind.INTRA_PLANE, LinkKind.INTER_PLANE], PLANES * SLOTS)
    a, b = np.concatenate([here, here]), np.concatenate([ahead, beside])
    return SpaceSegment(elements, laser_candidates(a, b, kind, lasers))


def _stations() -> tuple[GroundStation, ...]:
    terms = {"min_elevation": "0 deg", "uplink": "1 Gbit/s", "downlink": "1 Gbit/s"}
    return tuple(
        GroundStation.model_validate({"name": name, "latitude": f"{lat} deg", "longitude": f"{lon} deg", **terms})
        for name, (lat, lon) in GOLDEN["stations"].items()
    )


def _within_reach(view, antennas):
    """Hypatia's rule for ground links: all satellites up to a range."""
    return view.range_km <= GOLDEN["longest_ground_link_km"]


@pytest.fixture(scope="module")
def path_at():
    """A function: the path of a pair at a time, from a plan of that one instant."""
    space, stations, plans = _space(), _stations(), {}

    def find(pair: str, t_s: float):
        if t_s not in plans:
            start = GOLDEN["epoch"] + timedelta(milliseconds=round(t_s * 1000))
            plan = plan_segments(space, stations, TimeGrid(start, 1_000_000_000, 1), policy=_within_reach)
            ends = range(len(space.elements.names), len(plan.nodes.names))
            plans[t_s] = plan, PathFinder(plan, plan_routes(plan, destinations=ends))
        plan, finder = plans[t_s]
        source, destination = (name for name in plan.nodes.names if name in GOLDEN["stations"] and name in pair)
        return finder.path(plan.nodes.index(source), plan.nodes.index(destination), 0)

    return find


@pytest.mark.parametrize("pair", GOLDEN["rtt_ms"])
def test_round_trips_are_the_published_ones(path_at, pair):
    for row in GOLDEN["rtt_ms"][pair]:
        path = path_at(pair, row["t_s"] - ONE_TICK_S * row.get("limit_within_tick", False))
        found_ms = 2 * path.delay_ns / 1e6 if path else None
        assert found_ms == (pytest.approx(row["rtt_ms"], abs=FIVE_US_MS) if "rtt_ms" in row else None), row


@pytest.mark.parametrize("pair", GOLDEN["paths"])
def test_paths_change_to_the_published_ones_within_a_tick(path_at, pair):
    previous = None
    for row in GOLDEN["paths"][pair]:
        if previous is not None:
            assert _satellites(path_at(pair, row["from_s"] - 2 * ONE_TICK_S)) == previous, row
        previous = row["satellites"]
        assert _satellites(path_at(pair, row["from_s"])) == previous, row


def _satellites(path) -> list[int]:
    """The satellites of a path whose ends are the two stations."""
    if path is None:
        return []
    nodes = list(path.nodes[1:-1])
    return nodes if path.nodes[0] < path.nodes[-1] else nodes[::-1]


def test_the_constellation_has_the_published_size():
    lasers = _space().lasers
    assert len(lasers.a) == len(set(zip(lasers.a.tolist(), lasers.b.tolist(), strict=True))) == 2312
