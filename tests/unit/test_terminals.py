"""Terminals where people live: drawn by inhabitants and seed, near the centre of their city."""

from __future__ import annotations

from collections import Counter

import pytest

from isl_emu.scenario.ground import EARTH_RADIUS_KM, central_angle_rad
from isl_emu.scenario.ground_network import Place
from isl_emu.scenario.parse import format_scenario, parse_scenario
from isl_emu.scenario.sites import site_catalogue
from tests.scenarios import SMALL, head, shell, table

TERMS = {"min_elevation": "25 deg", "uplink": "1 Gbit/s", "downlink": "1 Gbit/s"}


def terminals(seed: int = 1, **keys):
    text = head(seed=seed) + shell(12) + table("[terminals]", name="ut", **TERMS, **keys)
    return parse_scenario(text, "test")


def test_one_table_stands_for_many_stations_after_the_others():
    text = SMALL + table("[terminals]", name="ut", count=3, handover="scheduled", access_delay="5 ms", **TERMS)
    scenario = parse_scenario(text, "test")
    assert scenario.station_names == ("gs-berlin", "ut-00", "ut-01", "ut-02")
    assert scenario.terminals == ()
    assert {station.handover for station in scenario.station[1:]} == {"scheduled"}
    assert {station.access_delay_ns for station in scenario.station[1:]} == {5_000_000}
    assert parse_scenario(format_scenario(scenario), "again") == scenario


def test_they_are_where_people_live():
    sites = ["tokyo", "reykjavik"]
    cities = [site_catalogue()[name] for name in sites]
    scenario = terminals(count=400, sites=sites, radius="20 km")
    found = Counter()
    for station in scenario.station:
        away_km = [EARTH_RADIUS_KM * central_angle_rad(station, _as_place(city)) for city in cities]
        found[sites[away_km[1] < away_km[0]]] += 1
        assert min(away_km) < 20.1
    share = cities[0].population / sum(city.population for city in cities)
    assert found["tokyo"] / 400 == pytest.approx(share, abs=0.03)


def _as_place(site) -> Place:
    place = {"latitude": f"{site.latitude_deg} deg", "longitude": f"{site.longitude_deg} deg"}
    return Place.model_validate({"name": "city", **place})


def test_the_seed_draws_them():
    places = [[station.latitude_rad for station in terminals(seed, count=5).station] for seed in (1, 1, 2)]
    assert places[0] == places[1] != places[2]
