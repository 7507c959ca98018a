"""Directions in the local orbital frame, and how fast they turn."""

from __future__ import annotations

import math
from datetime import datetime, timezone

import numpy as np
import pytest

from isl_emu.geometry.orbits import propagate
from isl_emu.geometry.pointing import (
    VELOCITY_STEP_NS,
    frame_rate_rad_s,
    local_axes,
    local_direction,
    sight_rate_rad_s,
    velocity_km_s,
)
from tests.orbits import circular_elements

RADIUS_KM, SPEED_KM_S = 7_000.0, 7.546
TWO_CM_S = 2e-5
START = datetime(2026, 3, 20, tzinfo=timezone.utc)


def on_circle(angle_rad: float) -> tuple[np.ndarray, np.ndarray]:
    """Position and velocity on an equatorial circle."""
    cos, sin = math.cos(angle_rad), math.sin(angle_rad)
    return RADIUS_KM * np.array([cos, sin, 0.0]), SPEED_KM_S * np.array([-sin, cos, 0.0])


def test_fore_starboard_and_zenith():
    axes = local_axes(*on_circle(0.0))
    # flying east over the equator, north up: the right hand points south
    assert local_direction(axes, np.array([0.0, 1.0, 0.0])) == pytest.approx([1.0, 0.0, 0.0])
    assert local_direction(axes, np.array([0.0, 0.0, -1.0])) == pytest.approx([0.0, 1.0, 0.0])
    assert local_direction(axes, np.array([1.0, 0.0, 0.0])) == pytest.approx([0.0, 0.0, 1.0])


def test_a_neighbour_ahead_is_seen_half_the_angle_below_the_level():
    (r, v), (ahead, _) = on_circle(1.0), on_circle(1.0 + math.radians(30))
    sight = (ahead - r) / np.linalg.norm(ahead - r)
    half_rad = math.radians(15)
    assert local_direction(local_axes(r, v), sight) == pytest.approx([math.cos(half_rad), 0.0, -math.sin(half_rad)])


def test_a_neighbour_in_the_same_circle_stands_still():
    (r, v), (ahead, v_ahead) = on_circle(0.3), on_circle(0.8)
    assert sight_rate_rad_s(frame_rate_rad_s(r, v), ahead - r, v_ahead - v) == pytest.approx(0.0, abs=1e-12)


def test_a_satellite_that_comes_the_other_way_turns_with_twice_its_speed_over_the_range():
    """At passing 100 km above, seen from below: relative speed over range, plus the frame's own turn against it."""
    r, v = on_circle(0.0)
    above_km, opposite_km_s = r * (1 + 100 / RADIUS_KM), -v
    expected_rad_s = 2 * SPEED_KM_S / 100 + SPEED_KM_S / RADIUS_KM
    assert sight_rate_rad_s(frame_rate_rad_s(r, v), above_km - r, opposite_km_s - v) == pytest.approx(expected_rad_s)


def test_both_ends_may_be_asked_at_once():
    """The other sees the same line from its end, in a frame of its own."""
    (r, v), (far, v_far) = on_circle(0.3), on_circle(1.1)
    r_far, v_far = far * 1.1, v_far * np.array([0.9, 0.9, 1.0])
    frames = np.stack([frame_rate_rad_s(r, v), frame_rate_rad_s(r_far, v_far)])
    both = sight_rate_rad_s(frames, r_far - r, v_far - v)
    assert both[0] == sight_rate_rad_s(frames[0], r_far - r, v_far - v)
    assert both[1] == sight_rate_rad_s(frames[1], r - r_far, v - v_far)


def test_a_star_seen_from_orbit_turns_once_a_revolution():
    r, v = on_circle(0.0)
    far = np.array([0.0, 1e12, 0.0])
    assert sight_rate_rad_s(frame_rate_rad_s(r, v), far, np.zeros(3)) == pytest.approx(SPEED_KM_S / RADIUS_KM)


def test_velocities_are_those_of_the_motion():
    raan_rad = np.linspace(0, 6, 7)
    elements = circular_elements([f"s{n}" for n in range(7)], START, 6_900.0, 1.7, raan_rad, raan_rad * 2)
    t_ns = np.array([0, 1_000, 3_000]) * 10**9
    found = velocity_km_s(propagate(elements, START, t_ns), propagate(elements, START, t_ns + VELOCITY_STEP_NS))
    central = propagate(elements, START, t_ns + 10_000_000) - propagate(elements, START, t_ns - 10_000_000)
    assert np.abs(found - central / 0.02).max() < TWO_CM_S
