"""An operator's scheduler: slots on a clock that all share, a choice by weights, gateways that follow it."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta, timezone

import numpy as np
import pytest

from isl_emu.linkplan.build import plan_links
from isl_emu.linkplan.plan import LinkKind
from isl_emu.linkplan.scheduler import Assignments, launch_years, slots_of
from isl_emu.linkplan.sightings import View
from isl_emu.routing.paths import path_at
from isl_emu.scenario.ground import Scheduler
from isl_emu.scenario.model import GroundStation
from isl_emu.scenario.parse import format_scenario, parse_scenario
from isl_emu.scenario.routing import Routing
from isl_emu.timebase import TimeGrid
from isl_emu.units import NS_PER_S
from tests.scenarios import head, shell, station, table

START = datetime(2024, 7, 17, 18, 0, 5, tzinfo=timezone.utc)
PLACE = {"latitude": "48.4 deg", "longitude": "-123.4 deg", "min_elevation": "25 deg"}
NEAR = {"latitude": "48.75 deg", "longitude": "-122.48 deg", "min_elevation": "25 deg"}
FLEET = shell(1584, 72, 17, altitude="550 km", inclination="53 deg", lasers={"topology": "none"})


def scheduled(**terms) -> GroundStation:
    table = {"name": "gs", **PLACE, "uplink": "1 Gbit/s", "downlink": "1 Gbit/s", "handover": "scheduled"}
    keys = {key: terms.pop(key) for key in ("antennas",) if key in terms}
    return GroundStation.model_validate({**table, **keys, "scheduler": terms})


def always(instants: int, elevation_deg: list[float], gso_deg: float = 90.0) -> View:
    """A view of satellites that all stay where they are."""
    k, satellite = (index.ravel() for index in np.indices((instants, len(elevation_deg))))
    elevation_rad = np.radians(np.array(elevation_deg))[satellite]
    apart_rad = np.full(len(k), np.radians(gso_deg))
    return View(k, satellite, elevation_rad, np.full(len(k), 1000.0), k.max() + 1.0 + 0 * k, apart_rad)


def chosen(view: View, of: GroundStation, step_s: int = 1, seed: int = 1, **others) -> np.ndarray:
    """The satellite at each instant."""
    grid = TimeGrid(START, step_s * NS_PER_S, int(view.k.max()) + 1)
    found = Assignments(grid, seed, others.get("launch_year", np.full(99, np.nan))).choose(of, view)
    return view.satellite[found]


def test_slots_are_those_of_a_clock_that_all_share():
    grid = TimeGrid(START, NS_PER_S, 60)
    slots = slots_of(Scheduler(), grid)
    begins_s = [(START + timedelta(seconds=slot.begin_k)).second for slot in slots]
    assert begins_s == [5, 12, 27, 42, 57]
    later = slots_of(Scheduler(), TimeGrid(START + timedelta(seconds=30), NS_PER_S, 60))
    assert {slot.number for slot in slots[2:]} <= {slot.number for slot in later}
    assert slots[-1].end_k == 67, "the end of the last slot is beyond the run"


def test_a_terminal_changes_at_the_boundaries_of_slots_alone():
    served = chosen(always(300, [40.0] * 30), scheduled())
    changes = np.flatnonzero(np.diff(served)) + 1
    assert len(served) == 300
    assert {(START + timedelta(seconds=int(k))).second % 15 for k in changes} == {12}
    other_phase = chosen(always(300, [40.0] * 30), scheduled(phase="0 s"))
    assert {(START + timedelta(seconds=int(k))).second % 15 for k in np.flatnonzero(np.diff(other_phase)) + 1} == {0}


def test_the_same_seed_gives_the_same_choice_and_another_one_another():
    view = always(600, [40.0] * 30)
    assert chosen(view, scheduled()).tolist() == chosen(view, scheduled()).tolist()
    assert chosen(view, scheduled()).tolist() != chosen(view, scheduled(), seed=2).tolist()


def test_chances_go_with_the_exponential_of_what_weighs():
    view = always(15 * 4000, [30.0, 60.0])
    weights = {"elevation": 3.0, "gso": 0.0, "keep": 0.0}
    served = chosen(view, scheduled(weights=weights))[7::15]
    assert (served == 1).mean() == pytest.approx(1 / (1 + np.exp(-3.0 * 30 / 90)), abs=0.03)


def test_without_randomness_what_weighs_most_wins():
    view = always(60, [30.0, 80.0, 50.0])
    assert set(chosen(view, scheduled(randomness=0.0))) == {1}
    newest = chosen(
        view, scheduled(randomness=0.0, weights={"age": 10.0}), launch_year=np.array([2024.0, 2020.0, 2021.0])
    )
    assert set(newest) == {0}


def test_a_satellite_near_the_geostationary_arc_is_not_used():
    assert len(chosen(always(30, [40.0, 50.0], gso_deg=17.0), scheduled())) == 0
    assert len(chosen(always(30, [40.0, 50.0], gso_deg=17.0), scheduled(gso_separation="15 deg"))) == 30


def test_who_is_loaded_is_avoided():
    view, grid = always(15, [40.0] * 3), TimeGrid(START + timedelta(seconds=7), NS_PER_S, 15)
    assignments = Assignments(grid, 1, np.full(3, np.nan))
    terms = {"randomness": 0.0, "weights": {"load": 1.0}}
    served = [view.satellite[assignments.choose(scheduled(**terms), view)][0] for _ in range(6)]
    assert Counter(served) == {0: 2, 1: 2, 2: 2}


def test_a_satellite_that_sets_within_the_slot_is_taken_only_if_no_other_is_there():
    whole = always(15, [30.0, 80.0])
    view = whole.only((whole.satellite == 0) | (whole.k < 10))
    view = View(view.k, view.satellite, view.elevation_rad, view.range_km, None, view.gso_rad)
    aligned = TimeGrid(START + timedelta(seconds=7), NS_PER_S, 15)
    take = Assignments(aligned, 1, np.full(2, np.nan)).choose(scheduled(randomness=0.0), view)
    assert set(view.satellite[take]) == {0}
    alone = view.only(view.satellite == 1)
    assert Assignments(aligned, 1, np.full(2, np.nan)).choose(scheduled(), alone).sum() == 10


def test_launches_are_those_of_the_shell_or_of_the_designator():
    lines = [
        "1 44713U 19074A   24199.00000000  .00000000  00000-0  00000-0 0  9990",
        "2 44713  53.0000   0.0000 0001000   0.0000   0.0000 15.06000000    00",
    ]
    tle = [line[:68] + str(sum(int(c) if c.isdigit() else c == "-" for c in line[:68]) % 10) for line in lines]
    text = head() + shell(2, launched="2021-07-01T00:00:00Z", lasers={"topology": "none"}).replace(
        '"2021-07-01T00:00:00Z"', "2021-07-01T00:00:00Z"
    )
    satellite = {"name": "one", "tle": tle}
    text += table("[shell]", name="tles", satellite=[satellite], lasers={"topology": "none"})
    years = launch_years(parse_scenario(text, "test"))
    assert years == pytest.approx([2021.5, 2021.5, 2019.3], abs=0.02)


@pytest.fixture(scope="module")
def bent_pipe():
    """A terminal, a gateway that follows it, a PoP and a server; and the plan of two minutes."""
    text = (
        head(start="2024-07-17T18:00:00Z", duration="120 s")
        + FLEET
        + station("user", **PLACE, handover="scheduled", access_delay="5 ms", scheduler={"through": ["gateway"]})
        + station("gateway", **NEAR, handover="follow", antennas=4, forwards=True)
        + table("[place]", name="pop", latitude="47.6 deg", longitude="-122.33 deg")
        + table("[place]", name="server", latitude="47.6 deg", longitude="-122.33 deg")
        + table("[terrestrial]", between=["gateway", "pop"])
        + table("[terrestrial]", between=["pop", "server"], delay="1 ms")
        + table("[place]", name="exchange", site="seattle")
        + table("[terrestrial]", between=["pop", "exchange"], length="12 km", refraction=1.5)
    )
    scenario = parse_scenario(text, "test")
    return scenario, plan_links(scenario, "")


def test_a_gateway_follows_the_terminals_that_are_scheduled_through_it(bent_pipe):
    _, plan = bent_pipe
    ground = plan.links.kind[plan.row_link] == LinkKind.GROUND
    k = np.repeat(np.arange(plan.grid.count), np.diff(plan.row_start))[ground]
    link = plan.row_link[ground]
    by_end = {
        name: dict(zip(k[plan.links.b[link] == node].tolist(), plan.links.a[link][plan.links.b[link] == node].tolist()))
        for node, name in enumerate(plan.nodes.names)
        if name in ("user", "gateway")
    }
    assert by_end["user"] == by_end["gateway"]
    assert len(by_end["user"]) == 120


def test_the_way_leads_over_the_ground_and_its_delay_is_the_sum(bent_pipe):
    scenario, plan = bent_pipe
    ends = (plan.nodes.index("user"), plan.nodes.index("server"))
    there, back = (path_at(plan, Routing(), *pair, 0) for pair in (ends, ends[::-1]))
    assert [plan.nodes.names[node] for node in there.nodes[2:]] == ["gateway", "pop", "server"]
    assert back.nodes == there.nodes[::-1]
    fibre_km = 1.5 * 128.3  # 128.3 km by any calculator of great circles
    on_ground_ms = fibre_km * 1.468 / 299.792458 + 1.0
    up_and_down_ms = plan.rows_of(0, there.links[:2])[0].delay_ns.sum() / 1e6
    assert there.delay_ns / 1e6 == pytest.approx(up_and_down_ms + on_ground_ms, abs=0.01)
    assert up_and_down_ms > 5.0 + 2 * 550 / 299.792458, "the access delay, and twice the altitude"


def test_a_ground_network_survives_the_way_through_its_text(bent_pipe):
    scenario, plan = bent_pipe
    again = parse_scenario(format_scenario(scenario), "again")
    assert again == scenario
    assert plan_links(again, "").digest() == plan.digest()


def test_a_line_of_a_given_length_takes_as_long_as_light_in_its_fibre(bent_pipe):
    _, plan = bent_pipe
    ends = plan.nodes.index("pop"), plan.nodes.index("exchange")
    assert path_at(plan, Routing(), *ends, 0).delay_ns == round(12 * 1.5 / 299_792.458 * 1e9)


def test_a_station_that_is_not_told_to_forward_does_not(bent_pipe):
    scenario, _ = bent_pipe
    ends_only = tuple(one.model_copy(update={"forwards": None}) for one in scenario.station)
    plan = plan_links(scenario.model_copy(update={"station": ends_only}), "")
    assert path_at(plan, Routing(), plan.nodes.index("user"), plan.nodes.index("server"), 0) is None
    assert path_at(plan, Routing(), plan.nodes.index("gateway"), plan.nodes.index("server"), 0) is not None


def test_a_station_may_say_that_it_does_not_forward(bent_pipe):
    scenario, _ = bent_pipe
    text = format_scenario(scenario).replace("forwards = true", "forwards = false")
    assert [one.forwards for one in parse_scenario(text, "the test").station] == [None, None]


def test_an_access_delay_that_varies_is_drawn_from_its_quantiles(bent_pipe):
    scenario, steady = bent_pipe
    user = scenario.station[0]
    varied = GroundStation.model_validate(
        {
            **user.model_dump(by_alias=True, exclude_none=True),
            "access_variation": {"quantiles": ("0 ms", "2 ms", "8 ms"), "interval": "10 s"},
        }
    )
    plan = plan_links(scenario.model_copy(update={"station": (varied, *scenario.station[1:])}), "")
    mine = plan.links.b[plan.row_link] == plan.nodes.index("user")
    extra_ms = (plan.row_delay_ns - steady.row_delay_ns)[mine] / 1e6
    whole_ms = extra_ms[2:112].reshape(11, 10)  # the plan begins 2 s before a second that ends in 2, as its slots do
    assert (whole_ms == whole_ms[:, :1]).all(), "the same throughout an interval"
    assert len(np.unique(extra_ms)) == 13
    assert extra_ms.min() >= 0.0
    assert extra_ms.max() <= 8.0
