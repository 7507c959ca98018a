from __future__ import annotations

import math

import numpy as np
import pytest

from isl_emu.geometry.walker import phase_spacing_rad, plane_spacing_rad, slot_spacing_rad, walker_angles
from isl_emu.scenario.model import Walker


def walker(total, planes, phasing=0, pattern="delta"):
    return Walker(pattern=pattern, total=total, planes=planes, phasing=phasing)


@pytest.mark.parametrize(("pattern", "spread_deg"), [("delta", 360), ("star", 180)])
def test_planes_share_the_spread_of_the_pattern(pattern, spread_deg):
    raan_rad, _ = walker_angles(walker(66, 6, pattern=pattern))
    assert raan_rad.shape == (6, 11)
    assert np.degrees(raan_rad[:, 0]) == pytest.approx(np.arange(6) * spread_deg / 6)
    assert (raan_rad == raan_rad[:, :1]).all()


def test_neighbours_in_adjacent_planes_differ_by_f_times_360_over_t():
    _, arg_lat_rad = walker_angles(walker(1584, 72, 39))
    assert np.degrees(arg_lat_rad[1] - arg_lat_rad[0]) == pytest.approx(np.full(22, 39 * 360 / 1584))


def test_all_planes_phasings_add_up_to_f_slots():
    pattern = walker(24, 8, 5)
    assert 8 * phase_spacing_rad(pattern) == pytest.approx(5 * slot_spacing_rad(pattern))


def test_a_single_satellite_is_at_the_origin():
    raan_rad, arg_lat_rad = walker_angles(walker(1, 1))
    assert (raan_rad.item(), arg_lat_rad.item()) == (0.0, 0.0)
    assert plane_spacing_rad(walker(1, 1)) == 2 * math.pi


def test_a_star_may_have_another_width():
    fan = Walker.model_validate({"pattern": "star", "total": 8, "planes": 8, "raan_spread": "16 deg"})
    raan_rad, _ = walker_angles(fan)
    assert np.degrees(raan_rad[:, 0]) == pytest.approx(np.arange(8) * 2.0)
    with pytest.raises(ValueError, match="raan_spread is given, but a delta spreads over 360 deg"):
        Walker.model_validate({"pattern": "delta", "total": 8, "planes": 8, "raan_spread": "16 deg"})


def test_alternating_planes_lead_by_one_phase_difference():
    _, arg_lat_rad = walker_angles(Walker(pattern="delta", total=1156, planes=34, phasing=17, alternate=True))
    half_slot_deg = 360 / 68
    assert np.degrees(arg_lat_rad[:, 0]) == pytest.approx(np.tile([0.0, half_slot_deg], 17))


def test_hypatias_telesat_has_odd_planes_half_a_slot_ahead_of_which_no_f_tells():
    telesat = Walker(pattern="delta", total=351, planes=27, alternate="half-slot")
    raan_rad, arg_lat_rad = walker_angles(telesat)
    ours = np.degrees(np.stack([raan_rad.ravel(), arg_lat_rad.ravel()], axis=1))
    # as satgenpy makes them: raan = 360 p / 27, mean anomaly = 360 s / 13, and in odd planes 360 / 26 more
    expected = [(p * 360 / 27, s * 360 / 13 + p % 2 * 360 / 26) for p in range(27) for s in range(13)]
    assert ours == pytest.approx(np.array(expected))
    with pytest.raises(ValueError, match="phasing is another"):
        Walker(pattern="delta", total=351, planes=27, phasing=13, alternate="half-slot")
