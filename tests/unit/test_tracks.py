from __future__ import annotations

import math
from datetime import datetime, timezone

import numpy as np
import pytest

from isl_emu.geometry.frames import ellipsoid_itrs_km, site_itrs_km, zenith_itrs
from isl_emu.geometry.places import terminal_itrs, track_points
from isl_emu.linkplan.sightings import station_view
from isl_emu.scenario.model import GroundStation
from isl_emu.units import NS_PER_S
from tests.skyfield_reference import latitude_longitude_rad

ONE_MM_KM = 1e-6
START = datetime(2026, 3, 20, 14, tzinfo=timezone.utc)


def moving(*points, kind="aircraft") -> GroundStation:
    track = tuple(
        {"after": f"{after} s", "latitude": f"{lat} deg", "longitude": f"{lon} deg", "height": f"{height} m"}
        for after, lat, lon, height in points
    )
    terms = {"min_elevation": "10 deg", "uplink": "1 Gbit/s", "downlink": "1 Gbit/s"}
    return GroundStation.model_validate({"name": "mover", "kind": kind, "track": track, **terms})


def places(station, *seconds):
    zenith, height_km = track_points(station, np.array(seconds) * NS_PER_S)
    latitude_rad, longitude_rad = latitude_longitude_rad(zenith)
    return np.degrees(latitude_rad), np.degrees(longitude_rad), height_km


@pytest.mark.parametrize("place", [(0, 0, 0), (90, 0, 0), (-90, 77, 2.8), (45, 180, 9), (-33.9, -179.5, 0.1)])
def test_the_ellipsoid_is_skyfields(place):
    latitude_rad, longitude_rad, height_km = math.radians(place[0]), math.radians(place[1]), place[2]
    ours_km = ellipsoid_itrs_km(zenith_itrs(latitude_rad, longitude_rad), np.array(float(height_km)))
    assert ours_km == pytest.approx(site_itrs_km(latitude_rad, longitude_rad, height_km), abs=ONE_MM_KM)


def test_along_the_equator_speed_and_climb_are_constant():
    latitude, longitude, height_km = places(moving((0, 0, 10, 0), (3600, 0, 18, 9000)), 0, 900, 1800, 3600)
    assert latitude == pytest.approx(0.0, abs=1e-12)
    assert longitude == pytest.approx([10, 12, 14, 18])
    assert height_km == pytest.approx([0, 2.25, 4.5, 9])


def test_a_great_circle_runs_north_of_the_parallel():
    """Between two places of latitude 60 deg, 90 deg apart, the middle lies at atan(tan 60 deg / cos 45 deg)."""
    latitude, longitude, _ = places(moving((0, 60, 0, 0), (21600, 60, 90, 0)), 10800)
    assert latitude == pytest.approx(math.degrees(math.atan(math.tan(math.radians(60)) / math.cos(math.radians(45)))))
    assert longitude == pytest.approx(45)


def test_the_short_way_crosses_the_date_line():
    _, longitude, _ = places(moving((0, 10, 179, 0), (3600, 10, -179, 0)), 0, 900, 2700, 3600)
    assert longitude == pytest.approx([179, 179.5, -179.5, -179], abs=1e-3)


def test_a_track_over_the_pole_comes_down_on_the_other_meridian():
    latitude, longitude, _ = places(moving((0, 88, 30, 0), (3600, 88, -150, 0)), 900, 1800, 2700)
    assert latitude == pytest.approx([89, 90, 89])
    assert longitude[[0, 2]] == pytest.approx([30, -150])


def test_a_terminal_waits_at_both_ends_of_its_track():
    latitude, longitude, _ = places(moving((600, 10, 20, 0), (1200, 11, 20, 0), kind="aircraft"), 0, 600, 1200, 99999)
    assert latitude == pytest.approx([10, 10, 11, 11])
    assert longitude == pytest.approx(20)


def test_a_ship_at_anchor_sees_what_a_station_there_sees():
    anchored = moving((0, 30.66, 104.06, 500), kind="ship")
    fixed = {"name": "gs", "latitude": "30.66 deg", "longitude": "104.06 deg", "height": "500 m"}
    terms = {"min_elevation": "10 deg", "uplink": "1 Gbit/s", "downlink": "1 Gbit/s"}
    offsets_ns = np.arange(3) * NS_PER_S
    angle_rad = np.linspace(0, 2 * math.pi, 200)
    ring_km = 14_000 * np.stack([np.cos(angle_rad), np.sin(angle_rad), 0 * angle_rad], axis=-1)
    positions_km = np.concatenate([ring_km, np.roll(ring_km, 1, axis=1)])[np.newaxis].repeat(3, axis=0)
    here, there = (
        station_view(station, positions_km, START, offsets_ns)
        for station in (anchored, GroundStation.model_validate(fixed | terms))
    )
    assert len(here.k) > 0
    assert (here.satellite == there.satellite).all()
    assert here.range_km == pytest.approx(there.range_km, abs=ONE_MM_KM)


def test_places_and_directions_have_the_instants_shape():
    offsets_ns = np.arange(5) * NS_PER_S
    place_km, zenith = terminal_itrs(moving((0, 0, 0, 0), (3600, 5, 5, 9000)), offsets_ns)
    assert place_km.shape == zenith.shape == (5, 3)
    assert np.linalg.norm(zenith, axis=1) == pytest.approx(1.0)
