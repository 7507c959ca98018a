"""Rain against the ITU's validation examples, and random weather against its own closed forms."""

from __future__ import annotations

import csv
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.special import ndtri

from isl_emu.errors import ScenarioError
from isl_emu.linkplan.build import plan_links
from isl_emu.linkplan.rain import (
    CODINGS,
    Climate,
    coded_rate_ratio,
    exceedance_ratio,
    rain_attenuation_db,
    site_climate,
)
from isl_emu.linkplan.sightings import View
from isl_emu.linkplan.weather import clear_sky, scintillation_loss_ratio, weather_place
from isl_emu.scenario.ground import Clouds, Rain, Scintillation
from isl_emu.scenario.model import GroundStation
from isl_emu.scenario.parse import parse_scenario
from isl_emu.units import NS_PER_S
from tests.scenarios import head, shell, station

P618 = list(csv.DictReader((Path(__file__).parents[1] / "authorities" / "p618_13_rain.csv").open()))
MIN_NS = 60 * NS_PER_S
BEIJING = Climate(rain_rate_mm_h=50.0, rain_height_km=4.5, rain_ratio=0.05)
ALWAYS = math.inf


@pytest.mark.parametrize("row", P618, ids=lambda row: f"{row['latitude_deg']}-{row['frequency_ghz']}-{row['percent']}")
def test_rain_attenuates_as_in_the_validation_examples_of_the_itu(row):
    value = {key: float(text) for key, text in row.items()}
    elevation_rad = math.radians(value["elevation_deg"])
    rain_height_km = value["height_km"] + value["slant_km"] * math.sin(elevation_rad)
    found_db = rain_attenuation_db(
        np.array(value["percent"] / 100),
        np.array(elevation_rad),
        value["frequency_ghz"],
        Climate(value["rain_rate_mm_h"], rain_height_km, ALWAYS),
        math.radians(value["latitude_deg"]),
        value["height_km"],
        math.radians(value["tilt_deg"]),
    )
    assert found_db == pytest.approx(value["attenuation_db"], rel=1e-4)


def test_attenuation_grows_with_rain_frequency_and_air():
    elevation_rad, ratio = np.radians([3, 5, 10, 30, 60]), np.array([[1e-4], [1e-3], [1e-2]])
    at_20 = rain_attenuation_db(ratio, elevation_rad, 20.0, BEIJING, math.radians(40), 0.05)
    at_30 = rain_attenuation_db(ratio, elevation_rad, 30.0, BEIJING, math.radians(40), 0.05)
    assert at_20.shape == (3, 5)
    assert (np.diff(at_20, axis=1) < 0).all()
    assert (np.diff(at_20, axis=0) < 0).all()
    assert (at_30 > at_20).all()


def test_there_is_no_rain_above_the_rain_nor_when_it_does_not_rain():
    at = (20.0, BEIJING, math.radians(40))
    assert rain_attenuation_db(np.array([1e-4]), np.array([1.0]), *at, 11.0).tolist() == [0.0]
    assert rain_attenuation_db(np.array([0.2]), np.array([1.0]), *at, 0.0).tolist() == [0.0]
    assert rain_attenuation_db(np.array([1e-4]), np.array([0.0]), *at, 0.0)[0] > 100, "along the horizon"


def test_coding_follows_the_margin_step_by_step():
    fade_db = CODINGS[-1, 0] - CODINGS[:, 0]
    assert coded_rate_ratio(3 + fade_db - 1e-9, 3.0) == pytest.approx(CODINGS[:, 1] / CODINGS[-1, 1])
    assert coded_rate_ratio(np.array([0.0, 3.0, 3.01, 18.23, 18.25]), 3.0) == pytest.approx(
        [1, 1, 3.300184 / 3.523143, 0.490243 / 3.523143, 0]
    )
    assert (np.diff(CODINGS, axis=0) > 0).all(), "each step bears more and carries more than the one before"


def test_the_rain_of_many_worlds_is_evenly_spread_over_the_shares_of_time():
    """By definition what is exceeded in a share p of the time is exceeded in a share p of independent draws."""
    t_ns = np.array([0, 3600]) * NS_PER_S
    ratios = np.array([exceedance_ratio(seed, (1, 2), t_ns) for seed in range(1500)])
    for share in (0.02, 0.1, 0.5):
        four_sigma = 4 * math.sqrt(share * (1 - share) / 1500)
        assert (ratios < share).mean(axis=0) == pytest.approx([share, share], abs=four_sigma)


def test_rain_forgets_in_five_thousand_seconds():
    t_ns = np.array([0, 5000]) * NS_PER_S
    levels = np.array([ndtri(exceedance_ratio(seed, (3, 4), t_ns)) for seed in range(1500)])
    assert np.corrcoef(levels.T)[0, 1] == pytest.approx(math.exp(-1), abs=0.09)


def test_rain_is_the_same_whatever_the_step_and_length_of_the_run():
    fine, coarse = np.arange(0, 900) * NS_PER_S, np.arange(0, 3600, 60) * NS_PER_S
    of_fine, of_coarse = exceedance_ratio(7, (5, 6), fine), exceedance_ratio(7, (5, 6), coarse)
    assert (of_fine[::60] == of_coarse[:15]).all()
    assert (exceedance_ratio(7, (5, 7), fine) != of_fine).all()


def test_rain_may_begin_as_told():
    t_ns = np.arange(0, 7200, 10) * NS_PER_S
    told, drawn = exceedance_ratio(7, (5, 6), t_ns, at_start=0.001), exceedance_ratio(7, (5, 6), t_ns)
    assert told[0] == pytest.approx(0.001)
    assert ((ndtri(told) - ndtri(drawn)) / (ndtri(told[0]) - ndtri(drawn[0]))).tolist() == pytest.approx(
        np.exp(-2e-4 * t_ns / NS_PER_S).tolist(), abs=1e-9
    )


def test_clouds_leave_the_stated_availability_and_last_as_long_as_stated():
    clouds = Clouds.model_validate({"availability": 0.7, "mean_duration": "20 min"})
    t_ns = np.arange(0, 4_000 * 60) * MIN_NS
    clear = clear_sky(3, clouds, (1, 1), t_ns)
    spells = np.flatnonzero(np.diff(clear.astype(int)))
    cloudy_min = np.diff(spells)[::2] if not clear[spells[0] + 1] else np.diff(spells)[1::2]
    assert clear.mean() == pytest.approx(0.7, abs=0.02)
    assert cloudy_min.mean() == pytest.approx(20.5, rel=0.06), "half a minute more: spells of less than one are missed"


def test_clouds_are_as_likely_at_the_start_as_ever():
    clouds = Clouds.model_validate({"availability": 0.3, "mean_duration": "20 min"})
    clear = np.array([clear_sky(seed, clouds, (1, 1), np.array([0, MIN_NS])) for seed in range(2000)])
    assert clear.mean(axis=0) == pytest.approx([0.3, 0.3], abs=0.041)


def test_places_have_their_own_clouds_and_the_same_at_any_step():
    clouds = Clouds.model_validate({"availability": 0.5, "mean_duration": "10 min"})
    t_ns = np.arange(0, 600) * MIN_NS
    here, there = clear_sky(1, clouds, (1, 1), t_ns), clear_sky(1, clouds, (1, 2), t_ns)
    assert 0.3 < (here == there).mean() < 0.7
    assert (clear_sky(1, clouds, (1, 1), t_ns[::5]) == here[::5]).all()
    assert clear_sky(1, None, (1, 1), t_ns).all()


def test_scintillation_has_its_mean_towards_the_zenith_and_more_below():
    scintillation = Scintillation.model_validate({"mean_loss_ratio": 0.001})
    count = np.arange(20_000)
    same = np.ones(len(count))
    for elevation_deg, factor in ((90, 1.0), (30, 2 ** (11 / 6))):
        view = View(count, np.zeros(len(count), dtype=np.int64), np.radians(elevation_deg) * same, same)
        losses = scintillation_loss_ratio(1, scintillation, "gs", view, NS_PER_S)
        assert losses.mean() == pytest.approx(0.001 * factor, rel=0.03)
    assert (scintillation_loss_ratio(1, None, "gs", view, NS_PER_S) == 0).all()


def _station(**terms) -> GroundStation:
    base = {"name": "gs", "min_elevation": "10 deg", "uplink": "1 Gbit/s", "downlink": "1 Gbit/s"}
    return GroundStation.model_validate(base | terms)


def test_weather_belongs_to_the_place():
    beijing, miyun = _station(site="beijing"), _station(site="miyun")
    same = _station(latitude="39.91 deg", longitude="116.40 deg")
    assert weather_place(beijing) == weather_place(same) != weather_place(miyun)
    east, west = (_station(latitude="0 deg", longitude=longitude) for longitude in ("180 deg", "-180 deg"))
    assert weather_place(east) == weather_place(west)


def test_maps_that_are_not_there_are_asked_for_in_one_sentence(monkeypatch):
    rain = Rain.model_validate({"downlink_frequency": "20 GHz", "uplink_frequency": "30 GHz", "rain_rate": "50 mm/h"})
    monkeypatch.setitem(sys.modules, "itur", None)
    monkeypatch.setitem(sys.modules, "itur.models", None)
    with pytest.raises(ScenarioError, match="station gs: .*itur, which is not installed; run `pip install itur`"):
        site_climate("gs", rain, 0.7, 2.0)


def test_the_maps_of_the_itu_say_what_is_not_given():
    pytest.importorskip("itur", reason="the ITU's maps (package itur) are not installed")
    rain = Rain.model_validate({"downlink_frequency": "20 GHz", "uplink_frequency": "30 GHz", "rain_height": "3 km"})
    climate = site_climate("gs", rain, math.radians(51.5), math.radians(-0.14))
    assert climate.rain_rate_mm_h == pytest.approx(26.48052, rel=1e-4), "P.837-7 validation example"
    assert climate.rain_ratio == pytest.approx(0.053615096, rel=1e-4), "the same"
    assert climate.rain_height_km == 3.0


SKY = (
    head("weather", seed=4, start="2026-03-20T12:00:00Z", duration="3 h", step="20 s")
    + shell(66, 6, 2, name="star", pattern="star", altitude="780 km", inclination="86.4 deg", lasers="none")
    + station(site="singapore", min_elevation="8.2 deg", uplink="100 Mbit/s")
)
CLOUDS = """access = "optical"
acquisition = "60 s"
[station.weather]
clouds = { availability = 0.5, mean_duration = "8 min" }
scintillation = { mean_loss_ratio = 0.01 }
"""
RAIN = """[station.weather.rain]
downlink_frequency = "20 GHz"
uplink_frequency = "30 GHz"
margin = "1 dB"
exceeded_at_start = 0.0005
rain_rate = "100 mm/h"
rain_height = "4.9 km"
rain_probability = 0.9
"""


def test_no_light_passes_a_cloud_and_the_link_is_acquired_anew():
    dry, cloudy = (plan_links(parse_scenario(SKY + text, "test"), "") for text in ("", CLOUDS))
    weather = Clouds.model_validate({"availability": 0.5, "mean_duration": "8 min"})
    place = weather_place(parse_scenario(SKY, "test").station[0])
    clear = clear_sky(4, weather, place, dry.grid.offsets_ns)
    up_dry, up_cloudy = np.diff(dry.row_start), np.diff(cloudy.row_start)
    assert not up_cloudy[~clear].any()
    assert 0.1 < clear.mean() < 0.9
    begins = np.flatnonzero(clear[1:] & ~clear[:-1]) + 1
    assert len(begins) > 3
    for begin in begins:
        assert not up_cloudy[begin : begin + 3].any(), "60 s of acquisition at 20 s a step"
    assert 0 < up_cloudy.sum() < up_dry.sum()
    assert 0 < cloudy.row_loss_ratio.min() < cloudy.row_loss_ratio.mean() < 0.3


def test_rain_lowers_rates_or_takes_links_down():
    dry, wet = (plan_links(parse_scenario(SKY + text, "test"), "") for text in ("", RAIN))
    down, up = wet.row_rate_ab_bit_s, wet.row_rate_ba_bit_s
    assert set(down.tolist()) <= set(np.rint(1e9 * CODINGS[:, 1] / CODINGS[-1, 1]).astype(int).tolist())
    assert len(set(down.tolist())) > 2
    assert (up / 1e8 <= down / 1e9 + 1e-6).all(), "30 GHz suffers more than 20 GHz"
    assert len(wet.row_link) <= len(dry.row_link)
    assert plan_links(parse_scenario(SKY + RAIN, "test"), "").digest() == wet.digest()
    assert plan_links(parse_scenario((SKY + RAIN).replace("seed = 4", "seed = 5"), "test"), "").digest() != wet.digest()
