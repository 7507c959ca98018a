"""What a scenario may say about its ground segment, and how it is told where it is wrong."""

from __future__ import annotations

import math

import pytest

from isl_emu.errors import ScenarioError
from isl_emu.scenario.parse import format_scenario, parse_scenario
from isl_emu.scenario.sites import site_catalogue
from tests.scenarios import head, shell, station

SKY = head() + shell(12)
RAIN = '[station.weather.rain]\ndownlink_frequency = "19.7 GHz"\nuplink_frequency = "29500 MHz"\n'
CLOUDS = '[station.weather]\nclouds = { availability = 0.6, mean_duration = "1 h" }\n'
TRACK = """kind = "ship"
track = [
    { after = "0 s", latitude = "10 deg", longitude = "179.9 deg" },
    { after = "1 h", latitude = "10 deg", longitude = "-179.9 deg", height = "10 m" },
]
"""


def station_of(text: str):
    scenario = parse_scenario(SKY + station() + text, "test")
    assert parse_scenario(format_scenario(scenario), "resolved") == scenario
    return scenario.station[0]


def problem_of(text: str) -> str:
    with pytest.raises(ScenarioError) as caught:
        parse_scenario(SKY + station() + text, "test")
    return str(caught.value)


def test_a_site_gives_the_coordinates():
    gs, site = station_of('site = "chengdu"'), site_catalogue()["chengdu"]
    assert math.degrees(gs.latitude_rad) == pytest.approx(site.latitude_deg)
    assert math.degrees(gs.longitude_rad) == pytest.approx(site.longitude_deg)
    assert gs.height_km == pytest.approx(site.height_m / 1000)


def test_what_stands_beside_a_site_counts_more():
    assert station_of('site = "chengdu"\nheight = "70 m"').height_km == pytest.approx(0.07)


def test_everything_about_handover_survives_the_round_trip():
    gs = station_of(
        'site = "svalbard"\nantennas = 2\naccess = "optical"\nhandover = "longest-contact"\n'
        'make_before_break = "5 s"\nhandover_gap = "2 s"\nacquisition = "15 s"\n'
    )
    assert (gs.make_before_break_ns, gs.handover_gap_ns, gs.acquisition_ns) == (5e9, 2e9, 15e9)
    assert (gs.access, gs.handover) == ("optical", "longest-contact")


def test_weather_survives_the_round_trip():
    turbulence = 'scintillation = { mean_loss_ratio = 0.01, interval = "5 s" }'
    optical = station_of('site = "calern"\naccess = "optical"\n' + CLOUDS + turbulence)
    assert optical.weather.clouds.mean_duration_ns == 3600 * 10**9
    assert optical.weather.scintillation.interval_ns == 5 * 10**9
    climate = 'rain_rate = "30.5 mm/h"\nrain_height = "2900 m"\nexceeded_at_start = 0.1'
    radio = station_of('site = "redu"\n' + RAIN + climate)
    rain = radio.weather.rain
    assert (rain.downlink_frequency_ghz, rain.rain_rate_mm_h, rain.rain_height_km) == (19.7, 30.5, pytest.approx(2.9))
    assert (rain.margin_db, rain.rain_probability, rain.exceeded_at_start) == (3.0, None, 0.1)


def test_a_track_gives_the_first_place():
    gs = station_of(TRACK)
    assert math.degrees(gs.longitude_rad) == pytest.approx(179.9)
    assert [point.height_km for point in gs.track] == [0.0, 0.01]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('site = "chengd"', "did you mean chengdu"),
        ('site = "atlantis-under-the-sea"', "the catalogue has no such site"),
        ("", "station[0].latitude is missing"),
        ('site = "chengdu"\n' + TRACK, "site and track are both given"),
        ('latitude = "11 deg"\n' + TRACK, "not those of the track's first waypoint"),
        (TRACK.replace('kind = "ship"', ""), "a track is for a ship or an aircraft"),
        ('site = "chengdu"\nkind = "ship"', "a moving ship needs a track"),
        (TRACK.replace("-179.9", "-177"), "is reached at 339 km/h, but the fastest ship makes 150 km/h"),
        (TRACK.replace('"ship"', '"aircraft"').replace("-179.9", "-160"), "km/h, but the fastest aircraft makes 1,250"),
        (TRACK.replace('"1 h"', '"0 s"'), "track[1] is not after the waypoint before it"),
        (TRACK.replace("-179.9", "0").replace('"10 deg", longitude = "0', '"-10 deg", longitude = "0'), "not unique"),
        (TRACK.replace('"10 m"', '"10"'), "station[0].track[1].height is '10' without a unit"),
        ('site = "chengdu"\nmake_before_break = "5 s"', "make_before_break is given with one antenna"),
        ('site = "chengdu"\nheight = "11 km"', "the ground lies between -500 m and 9 km"),
        ('site = "chengdu"\nhandover = "random"', "station[0].handover is 'random'"),
        ('site = "redu"\naccess = "optical"\n' + RAIN, 'weather.rain is given with access = "optical"'),
        ('site = "redu"\n' + CLOUDS, "weather.clouds is given with access"),
        ('site = "redu"\n[station.weather]', "station[0].weather is empty"),
        ('site = "redu"\n' + RAIN.replace("19.7", "190"), "the most allowed is 55 GHz"),
        ('site = "redu"\n' + RAIN.replace(" GHz", ""), "downlink_frequency is '19.7' without a unit"),
        ('site = "chengdu"\naccess = "smoke"', "station[0].access is 'smoke'"),
    ],
)
def test_a_wrong_ground_segment_is_explained(text, complaint):
    assert complaint in problem_of(text)


def test_every_site_of_the_catalogue_is_a_place_with_a_source():
    sites = site_catalogue()
    assert len(sites) >= 60
    assert list(sites) == sorted(sites)
    for site in sites.values():
        assert -90 <= site.latitude_deg <= 90
        assert -180 <= site.longitude_deg <= 180
        assert -100 <= site.height_m <= 5000
        assert len(site.source) > 10
        assert station_of(f'site = "{site.name}"').site == site.name
