"""Limits of laser links, in plans made from scenarios."""

from __future__ import annotations

import math

import numpy as np
import pytest

from isl_emu.arrays import unit
from isl_emu.errors import ScenarioError
from isl_emu.geometry.elements import constellation_elements
from isl_emu.geometry.orbits import propagate
from isl_emu.geometry.sunlight import in_shadow, sun_direction
from isl_emu.linkplan import build
from isl_emu.linkplan.build import plan_links
from isl_emu.linkplan.plan import LinkKind
from isl_emu.scenario.parse import format_scenario, parse_scenario
from tests.scenarios import head, shell

GRID = head("grid", duration="6000 s", step="60 s") + shell(
    60, 5, 2, name="grid", pattern="star", altitude="780 km", inclination="86.4 deg", lasers="+grid"
)
ROUNDING_RAD = 1e-9


def scenario_of(extra: str = ""):
    return parse_scenario(GRID + extra, "test")


def plan_of(extra: str = ""):
    scenario = scenario_of(extra)
    return plan_links(scenario, format_scenario(scenario))


def geometry():
    scenario = scenario_of()
    t_ns = scenario.time.grid.offsets_ns
    return propagate(constellation_elements(scenario), scenario.time.start, t_ns), t_ns, scenario.time.start


def rows_up(plan) -> set[tuple[int, int, int]]:
    """(instant, a, b) of all rows."""
    k = np.repeat(np.arange(plan.grid.count), np.diff(plan.row_start))
    return set(zip(k.tolist(), plan.links.a[plan.row_link].tolist(), plan.links.b[plan.row_link].tolist(), strict=True))


@pytest.fixture(scope="module")
def free():
    return plan_of()


def test_a_polar_cutoff_takes_links_between_planes_down_at_high_latitudes(free):
    limited = plan_of('polar_cutoff = "60 deg"')
    r_km, _, _ = geometry()
    latitude_rad = np.arcsin(np.abs(unit(r_km)[..., 2]))
    intra = {(k, a, b) for k, a, b in rows_up(free) if a // 12 == b // 12}
    low = {
        (k, a, b)
        for k, a, b in rows_up(free)
        if max(latitude_rad[k, a], latitude_rad[k, b]) <= math.radians(60) + ROUNDING_RAD
    }
    assert rows_up(limited) == intra | low
    assert len(rows_up(limited)) < len(rows_up(free))


def test_no_receiver_looks_at_the_sun_and_nothing_else_is_lost(free):
    exclusion_deg = 15.0
    limited = plan_of(f'sun_exclusion = "{exclusion_deg} deg"')
    r_km, t_ns, start = geometry()
    sun = sun_direction(start, t_ns)
    dazzled = set()
    for k, a, b in rows_up(free):
        for here, there in ((a, b), (b, a)):
            sight = (r_km[k, there] - r_km[k, here]) / np.linalg.norm(r_km[k, there] - r_km[k, here])
            off_deg = math.degrees(math.acos(np.clip(sight @ sun[k], -1, 1)))
            if off_deg < exclusion_deg and not in_shadow(r_km[k, here], sun[k]):
                dazzled.add((k, a, b))
    assert dazzled
    assert rows_up(limited) == rows_up(free) - dazzled


def test_neighbours_in_a_plane_hardly_turn_and_others_do(free):
    limited = plan_of('max_angular_rate = "0.01 deg/s"')
    kinds = limited.links.kind[limited.row_link]
    assert (kinds == LinkKind.INTRA_PLANE).sum() == (free.links.kind[free.row_link] == LinkKind.INTRA_PLANE).sum()
    assert (kinds == LinkKind.INTER_PLANE).sum() < (free.links.kind[free.row_link] == LinkKind.INTER_PLANE).sum()
    assert rows_up(limited) < rows_up(free)


def test_rates_may_differ_by_direction():
    plan = plan_of('rate = "10 Gbit/s"\nreturn_rate = "1 Gbit/s"')
    assert set(plan.row_rate_ab_bit_s.tolist()) == {10**10}
    assert set(plan.row_rate_ba_bit_s.tolist()) == {10**9}


def test_a_budget_gives_a_rate_by_range_and_takes_down_what_does_not_close(free):
    budget = 'transmit_power = "0.5 W", transmit_aperture = "50 mm", photons_per_bit = 500.0'
    plan = plan_of(f"budget = {{ {budget} }}")
    by_delay = plan.row_rate_ab_bit_s.astype(float) * plan.row_delay_ns.astype(float) ** 2
    below = plan.row_rate_ab_bit_s < 10**11
    assert below.any()
    assert np.ptp(by_delay[below]) / by_delay[below].mean() < 1e-6, "rate x range^2 is the same for all"
    nothing = plan_of(f'budget = {{ {budget}, rates = ["100 Gbit/s"] }}')
    assert rows_up(nothing) == {
        row for row, rate in zip(_ordered(plan), plan.row_rate_ab_bit_s, strict=True) if rate == 10**11
    }


def _ordered(plan) -> list[tuple[int, int, int]]:
    k = np.repeat(np.arange(plan.grid.count), np.diff(plan.row_start))
    return list(
        zip(k.tolist(), plan.links.a[plan.row_link].tolist(), plan.links.b[plan.row_link].tolist(), strict=True)
    )


RANDOM = """outages = { mean_time_to_failure = "20 min", mean_time_to_repair = "5 min" }
jitter = { mean_loss_ratio = 0.01, interval = "2 min" }
"""


def test_outages_take_their_share_and_losses_have_their_mean(free):
    plan = plan_of(RANDOM)
    assert rows_up(plan) < rows_up(free)
    assert len(rows_up(plan)) / len(rows_up(free)) == pytest.approx(0.8, abs=0.05)
    assert plan.row_loss_ratio.mean() == pytest.approx(0.01, rel=0.1)


def test_random_processes_follow_the_seed_and_not_the_chunks(monkeypatch):
    plan = plan_of(RANDOM)
    assert plan_of(RANDOM).digest() == plan.digest()
    other = parse_scenario(GRID.replace('name = "grid"', 'name = "grid"\nseed = 2', 1) + RANDOM, "test")
    assert plan_links(other, plan.scenario_toml).digest() != plan.digest()
    monkeypatch.setattr(build, "POSITIONS_AT_ONCE", 60 * 7)
    assert plan_of(RANDOM).digest() == plan.digest()


def test_a_process_more_does_not_change_the_others():
    both, outages_only = plan_of(RANDOM), plan_of(RANDOM.splitlines()[0])
    assert rows_up(both) == rows_up(outages_only)


EVERYTHING = """rate = "10 Gbit/s"
return_rate = "1 Gbit/s"
max_angular_rate = "0.3 deg/s"
polar_cutoff = "70 deg"
sun_exclusion = "2.5 deg"
[shell.lasers.budget]
transmit_power = "300 mW"
wavelength = "1064 nm"
transmit_aperture = "80 mm"
receive_aperture = "12 cm"
pointing_loss = "1.5 dB"
system_loss = "4 dB"
sensitivity = "-35.5 dBm"
sensitivity_rate = "10 Gbit/s"
margin = "2 dB"
rates = ["10 Gbit/s", "1 Gbit/s"]
[shell.lasers.outages]
mean_time_to_failure = "6 h"
mean_time_to_repair = "40 s"
[shell.lasers.jitter]
mean_loss_ratio = 0.001
interval = "5 s"
"""


def test_every_option_survives_being_written_and_read():
    scenario = scenario_of(EVERYTHING)
    assert parse_scenario(format_scenario(scenario), "again") == scenario
    assert scenario.shell[0].lasers.budget.wavelength_m == pytest.approx(1.064e-6)


@pytest.mark.parametrize(
    ("extra", "complaint"),
    [
        ('max_angular_rate = "0 deg/s"', "must be more than 0 deg/s"),
        ('polar_cutoff = "-5 deg"', "the least allowed is 0 deg"),
        ('budget = { transmit_power = "1 W", transmit_aperture = "8 cm" }', "has no clear sensitivity"),
        ('budget = { transmit_power = "1 W", transmit_aperture = "8 cm", sensitivity = "-30 dBm" }', "no clear sens"),
        (
            'budget = { transmit_power = "30 dBm", transmit_aperture = "8 cm", photons_per_bit = 1.0 }',
            "a power is given in",
        ),
        ('outages = { mean_time_to_failure = "1 h" }', "mean_time_to_repair is missing"),
        ("jitter = { mean_loss_ratio = 1.5 }", "mean_loss_ratio is 1.5"),
        ("jitter = { mean_los_ratio = 0.5 }", "did you mean mean_loss_ratio"),
    ],
)
def test_mistakes_are_named(extra, complaint):
    with pytest.raises(ScenarioError, match=complaint):
        scenario_of(extra)
