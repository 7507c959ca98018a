"""Faults of a scenario: what is refused, who is hit when, how they add up, and what is known of them."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isl_emu.errors import ScenarioError
from isl_emu.linkplan.build import plan_expected, plan_links
from isl_emu.linkplan.draws import uniform
from isl_emu.linkplan.fault_draws import weibull, within
from isl_emu.linkplan.fault_events import TERMS, Faults, FaultThing
from isl_emu.linkplan.faults import with_faults
from isl_emu.linkplan.plan import LinkKind, LinkPlan, LinkState
from isl_emu.linkplan.plan_file import read_plan, write_plan
from isl_emu.network.desired import changed_ends, ends_at, initial_ends
from isl_emu.parts.faults.part import lost_for_good
from isl_emu.parts.part import Source
from isl_emu.parts.serving.model_file import read_header, resolve_model
from isl_emu.planned import PlannedNetwork, plan_network
from isl_emu.routing.forwarding import plan_routes
from isl_emu.routing.outlook import plan_outlook
from isl_emu.routing.paths import PathFinder
from isl_emu.scenario.faults import Region
from isl_emu.scenario.parse import format_scenario, parse_scenario
from isl_emu.units import NS_PER_S
from tests.plans import MS, make_plan, ring_edges
from tests.scenarios import head, shell, station, table

PLANES = head("faulty", duration="60 s") + shell(24, 4, 1, altitude="1200 km", inclination="60 deg", lasers="+grid")
PLANES += station("gs", latitude="30 deg", longitude="104 deg", antennas=2)


def fault(name: str = "one", **keys: Any) -> str:
    """A fault: `for_` is its key "for"."""
    return table("[fault]", name=name, **{key.rstrip("_"): value for key, value in keys.items()})


def planned(*faults: str, base: str = PLANES) -> PlannedNetwork:
    return plan_network(parse_scenario(base + "".join(faults), "test"))


def stretches(plan: PlannedNetwork, number: int = 0) -> list[tuple[int, int, int]]:
    """Target, first instant and end of the events of a fault."""
    found = plan.link_plan.faults
    own = found.fault == number
    return list(zip(found.target[own].tolist(), found.k_from[own].tolist(), found.k_until[own].tolist(), strict=True))


def same_rows(one: LinkPlan, other: LinkPlan, k: int) -> bool:
    a, b = one.snapshot(k), other.snapshot(k)
    return all(np.array_equal(getattr(a, field.name), getattr(b, field.name)) for field in fields(a))


CUT = fault("cut", links=["p00s00 - p00s01"], at="10 s", for_="5 s", effect="cut", known="after 3 s")


# What is refused


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"satellites": "all", "links": ["gs - p*"], "effect": "cut"}, "satellites and links are given"),
        ({"effect": "cut"}, "names nothing that it hits"),
        ({"stations": ["gs"], "planes": [1], "effect": "cut"}, "planes is given beside stations"),
        ({"satellites": "all", "effect": "cut", "mtbf": "3 s"}, "mtbf is given beside at or every"),
        ({"satellites": "all", "effect": "cut", "shape": 2.0}, "shape is given without mtbf"),
        ({"satellites": "all", "effect": "cut", "count": 2, "fraction": 0.5}, "fraction and count"),
        ({"satellites": "all", "effect": "cut", "for_": "1 s", "mttr": "1 s"}, "for and mttr"),
        ({"satellites": "all", "effect": "kill"}, "satellites can have cut, degrade, power-off"),
        ({"satellites": "all", "effect": "degrade"}, "nothing is worse"),
        ({"satellites": "all", "effect": "cut", "loss": 0.5}, 'loss is given with effect "cut"'),
        ({"satellites": "all", "effect": "cut", "reboot": "1 s"}, 'reboot is given with effect "cut"'),
        ({"satellites": "all", "effect": "cut", "known": "later"}, "known is 'later', but it is \"at once\""),
        ({"links": ["gs"], "effect": "cut"}, "a link is written by its two ends"),
        ({"links": ["gs - x"], "effect": "cut"}, "has 'x', but it matches no node"),
        ({"terminals": ["p* fore"], "effect": "cut"}, "no satellite of that name has a terminal there"),
        ({"planes": [4], "effect": "cut"}, "planes has 4, but its shells have 4 planes"),
        ({"servers": "all", "effect": "kill"}, "no satellite runs a model server"),
        ({"satellites": "all", "effect": "cut", "at": "60 s"}, "the run is over by then"),
        ({"region": {"latitude": ["10 deg", "0 deg"]}, "effect": "cut"}, "write south first"),
        ({"region": {"polygon": [["0 deg", "0 deg"], ["1 deg", "0 deg"]]}, "effect": "cut"}, "needs three"),
        ({"region": {}, "effect": "cut"}, "has no shape"),
        ({"satellites": "all", "effect": "degrade", "jitter": "3 s"}, "the most allowed is 2 s"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(ScenarioError, match=said):
        parse_scenario(PLANES + fault(**{"at": "1 s", **keys}), "test")


def test_all_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(ScenarioError) as caught:
        parse_scenario(PLANES + fault(links=["a"], at="1 s", effect="cut", known="no") + fault(effect="cut"), "test")
    assert len(caught.value.problems) == 3


def test_a_resolved_scenario_has_the_same_faults_and_one_without_has_no_word_of_any() -> None:
    profile = [["0 s", 0.0], ["30 s", 5.0]]
    text = PLANES + CUT + fault("storm", satellites=["p0*"], mtbf="1 min", profile=profile, mttr="3 s", effect="cut")
    scenario = parse_scenario(text, "test")
    assert parse_scenario(format_scenario(scenario), "again") == scenario
    assert "fault =" not in format_scenario(parse_scenario(PLANES, "test"))


# Who is hit, and when


def test_given_times_and_lengths_are_those_of_the_scenario() -> None:
    plan = planned(
        fault("listed", satellites=["p00s00"], at=["3 s", "20 s"], for_="2 s", effect="cut"),
        fault("repeated", stations=["gs"], at="5 s", every="25 s", for_="1500 ms", effect="power-off", reboot="2 s"),
        fault("last", satellites=["p00s01"], at="50 s", effect="cut"),
        fault("between", satellites=["p00s01"], at="1200 ms", for_="100 ms", effect="cut"),
        fault("flips", satellites=["p00s02"], at="3 s", every="3 s", for_="10 s", effect="cut"),
    )
    assert stretches(plan, 0) == [(0, 3, 5), (0, 20, 22)]
    assert stretches(plan, 1) == [(24, 5, 9), (24, 30, 34), (24, 55, 59)]
    assert stretches(plan, 2) == [(1, 50, 60)]
    assert stretches(plan, 3) == [(1, 2, 3)], "at the next instant, and for one at least"
    assert stretches(plan, 4) == [(2, 3, 60)], "what strikes again while it holds is one stretch"


def test_satellites_are_those_that_fit_all_selectors() -> None:
    plan = planned(
        fault("plane", planes=[1], at="3 s", effect="cut"),
        fault("some", planes=[1], satellites=["p*s0[0-2]", "!p01s01"], at="3 s", effect="cut"),
        fault("links", links=["gs - p0*"], at="3 s", effect="cut"),
    )
    assert [target for target, *_ in stretches(plan, 0)] == list(range(6, 12))
    assert [target for target, *_ in stretches(plan, 1)] == [6, 8]
    links = plan.link_plan.links
    assert [target for target, *_ in stretches(plan, 2)] == np.flatnonzero(links.b == 24).tolist()


def test_a_count_is_drawn_anew_each_time_and_batches_are_hit_together() -> None:
    plan = planned(
        fault("count", satellites="all", count=5, at=["3 s", "10 s", "20 s"], for_="1 s", effect="cut"),
        fault("batch", satellites="all", batch=6, count=1, at="3 s", effect="cut"),
        fault("share", satellites="all", fraction=0.25, mtbf="5 s", for_="1 s", effect="cut"),
        fault("together", planes=[2], together=True, mtbf="10 s", for_="1 s", effect="cut"),
    )
    by_time = {k: {target for target, begun, _ in stretches(plan, 0) if begun == k} for k in (3, 10, 20)}
    assert {len(hit) for hit in by_time.values()} == {5}
    assert len({frozenset(hit) for hit in by_time.values()}) == 3
    batch = [target for target, *_ in stretches(plan, 1)]
    assert batch == list(range(batch[0], batch[0] + 6)) and batch[0] % 6 == 0
    assert len({target for target, *_ in stretches(plan, 2)}) == 6
    struck: dict[int, set[int]] = {}
    for target, k, _ in stretches(plan, 3):
        struck.setdefault(k, set()).add(target)
    assert struck and all(hit == set(range(12, 18)) for hit in struck.values())


def test_a_fault_draws_by_its_own_name_and_seed() -> None:
    broken = {"satellites": "all", "mtbf": "20 s", "mttr": "2 s", "effect": "cut"}
    alone, beside = planned(fault("a", **broken)), planned(fault("b", **broken), fault("a", **broken))
    assert stretches(alone) == stretches(beside, 1) != stretches(beside, 0)
    longer = planned(fault("a", **broken), base=PLANES.replace('"60 s"', '"90 s"'))
    before = [one for one in stretches(longer) if one[2] < 60]
    assert before == [one for one in stretches(alone) if one[2] < 60]
    assert stretches(planned(fault("a", **broken, seed=7))) != stretches(alone)


@pytest.mark.parametrize("shape", [0.7, 1.0, 3.0])
def test_times_have_their_mean_and_spread(shape: float) -> None:
    """Of n draws the mean is off by less than five of its standard deviations; so is the share below the mean."""
    count, mean = 40_000, 12.0
    drawn = weibull(mean, shape, uniform(3, "test", np.arange(count)))
    scale = mean / math.gamma(1 + 1 / shape)
    deviation = scale * math.sqrt(math.gamma(1 + 2 / shape) - math.gamma(1 + 1 / shape) ** 2)
    assert abs(drawn.mean() - mean) < 5 * deviation / math.sqrt(count)
    assert drawn.std() == pytest.approx(deviation, rel=0.05)
    below = 1 - math.exp(-((mean / scale) ** shape))
    assert abs((drawn < mean).mean() - below) < 5 * math.sqrt(below * (1 - below) / count)


LONG = PLANES.replace('"60 s"', '"6000 s"').replace("[[shell]]", 'step = "1 s"\n[[shell]]', 1)


def test_failures_are_as_frequent_and_last_as_long_as_the_scenario_says() -> None:
    """24 satellites for 6,000 s: about 24 x 6000 / (100 + 20) failures."""
    plan = planned(fault(satellites="all", mtbf="100 s", mttr="20 s", effect="power-off"), base=LONG)
    found = stretches(plan)
    cycle_s, expected = 120.0, 24 * 6000 / 120.0
    assert abs(len(found) - expected) < 5 * math.sqrt(expected * (100**2 + 20**2) / cycle_s**2)
    lasted = np.array([until - begun for _, begun, until in found if until < 6000])
    assert abs(lasted.mean() - 20.5) < 5 * 20 / math.sqrt(len(lasted)), "half a step longer, as ends are rounded up"


def test_a_storm_strikes_as_its_profile_rises() -> None:
    """Between 0 and 2,000 s nothing, then up to 2 times at 4,000 s: 4,000 s at the full rate from there on."""
    profile = [["2000 s", 0.0], ["4000 s", 2.0]]
    storm = fault(satellites="all", mtbf="50 s", for_="1 s", profile=profile, effect="cut")
    begun = np.array([k for _, k, _ in stretches(planned(storm, base=LONG))])
    assert begun.min() > 2000
    rising, full = (begun < 4000).sum(), (begun >= 4000).sum()
    for found, expected in ((rising, 24 * 2000 / 50), (full, 24 * 4000 / 50)):
        assert abs(found / expected - 1) < 0.15  # repairs of a second take away 4 % at most; the rest is chance


def test_a_region_holds_whom_it_passes_over() -> None:
    south = {"latitude": ["-50 deg", "0 deg"], "longitude": ["170 deg", "-60 deg"]}
    everywhere = {"latitude": ["-90 deg", "90 deg"]}
    polygon = [["-50 deg", "170 deg"], ["-50 deg", "300 deg"], ["0 deg", "300 deg"], ["0 deg", "170 deg"]]
    plan = planned(
        fault("south", region=south, effect="cut"),
        fault("all", region=everywhere, planes=[0], effect="cut"),
        fault("polygon", region={"polygon": polygon}, effect="cut"),
        fault("inside", region=south, mtbf="300 s", effect="power-off"),
        fault("then", region=south, at="1000 s", effect="power-off"),
        base=LONG,
    )
    assert {target for target, *_ in stretches(plan, 1)} == set(range(6))
    assert all((begun, until) == (0, 6000) for _, begun, until in stretches(plan, 1))
    south_of = stretches(plan, 0)
    assert len(south_of) > 24 and south_of == stretches(plan, 2)
    share = sum(until - begun for _, begun, until in south_of) / (24 * 6000)
    # of an orbit's argument of latitude, asin(sin 50 / sin 60) on both sides of the node; of longitudes, 130 of 360
    in_band = math.asin(math.sin(math.radians(50)) / math.sin(math.radians(60))) / math.pi
    assert share == pytest.approx(in_band * 130 / 360, rel=0.25)
    passes = {(target, until): begun for target, begun, until in south_of}
    for target, begun, until in stretches(plan, 3):
        assert passes[target, until] <= begun, "it fails inside, and is right again when it leaves"
    assert {target for target, *_ in stretches(plan, 4)} == {t for t, begun, until in south_of if begun <= 1000 < until}


def test_places_in_regions_and_not() -> None:
    degrees = np.radians([0.0, 10.0, -170.0, 179.0, 199.0, np.nan])
    zero = np.zeros(6)
    band = Region.model_validate({"longitude": ("170 deg", "-160 deg")})
    assert within(band, zero, degrees).tolist() == [False, False, True, True, True, False]
    triangle = (("-10 deg", "175 deg"), ("10 deg", "175 deg"), ("0 deg", "195 deg"))
    over_the_date_line = Region.model_validate({"polygon": triangle})
    assert within(over_the_date_line, zero, degrees).tolist() == [False, False, True, True, False, False]


MOUNTED = {"topology": "+grid", "terminal": [{"mounts": ["fore", "aft", "port", "starboard"]}]}


def test_a_terminal_takes_its_link_with_it() -> None:
    text = head("mounted", duration="30 s") + shell(24, 2, 1, altitude="1200 km", inclination="60 deg", lasers=MOUNTED)
    plan = planned(fault(terminals=["p00s03 fore", "p01s00 *"], at="5 s", for_="5 s", effect="cut"), base=text)
    names, links = plan.nodes, plan.link_plan.links
    hit = {(names[links.a[link]], names[links.b[link]]) for link, *_ in stretches(plan)}
    assert ("p00s03", "p00s04") in hit and ("p00s02", "p00s03") not in hit
    assert {pair for pair in hit if "p01s00" in pair} >= {("p01s00", "p01s01"), ("p01s00", "p01s11")}
    assert {(begun, until) for _, begun, until in stretches(plan)} == {(5, 10)}


# What they do, and what is left of them


def test_what_is_over_leaves_exactly_what_was_planned() -> None:
    worse = fault("worse", planes=[0, 1], at="12 s", for_="20 s", effect="degrade", loss=0.1, corruption=0.2,
                  duplication=0.3, jitter="1 ms", rate_factor=0.3, delay_factor=1.7)  # fmt: skip
    plan, sky = planned(CUT, worse).link_plan, planned().link_plan
    for k in range(60):
        assert same_rows(plan, sky, k) == (k < 10 or k >= 32)
        assert same_rows(plan.sky, sky, k)
    ends, bare = initial_ends(plan, 0), initial_ends(sky, 0)
    for k in range(60):
        ends, bare = ends_at(plan, k, ends, 0, grain_ns=0), ends_at(sky, k, bare, 0, grain_ns=0)
        assert bool(len(changed_ends(bare, ends))) == (10 <= k < 32)
        worst = ends["corruption_ratio"][ends["up"]].max(), ends["jitter_ns"][ends["up"]].max()
        assert worst == ((0.2, MS) if 12 <= k < 32 else (0.0, 0))


def hand_made(*events: tuple[int, FaultThing, int, int, int], terms: list[tuple[Any, ...]]) -> LinkPlan:
    """A ring of four for ten instants with faults (number, thing, target, from, until)."""
    columns = np.array([(*one, *one[3:]) for one in events], np.int64).reshape(-1, 7).T
    kinds = (np.int32, np.uint8, np.int32, np.int64, np.int64, np.int64, np.int64)
    names = tuple(f"f{number}" for number in range(len(terms)))
    columns = [column.astype(kind) for column, kind in zip(columns, kinds, strict=True)]
    faults = Faults(names, ("degrade",) * len(terms), np.array(terms, TERMS), *columns)
    return with_faults(make_plan(4, [], [ring_edges(4, 5 * MS)] * 10), faults)


def test_faults_that_hold_at_once_add_up_and_end_by_themselves() -> None:
    plan = hand_made(
        (0, FaultThing.LINK, 0, 1, 6), (1, FaultThing.NODE, 0, 3, 8), (2, FaultThing.LINK, 0, 4, 5),
        (1, FaultThing.NODE, 1, 3, 8),
        terms=[(False, 0.5, 0.1, 0.0, MS, 0.5, 2.0), (False, 0.2, 0.1, 0.5, MS, 0.1, 1.5), (True, 0, 0, 0, 0, 1, 1)],
    )  # fmt: skip

    def first_link(k: int) -> tuple[float, ...] | None:
        up = plan.snapshot(k)
        if 0 not in up.link:
            return None
        return tuple(float(getattr(up, field.name)[0]) for field in fields(up)[1:])

    assert first_link(0) == first_link(8) == (5 * MS, 1e9, 1e9, 0.0, 0.0, 0.0, 0.0)
    assert first_link(1) == (10 * MS, 5e8, 5e8, 0.5, 0.1, 0.0, MS)
    assert first_link(3) == pytest.approx((15 * MS, 5e7, 5e7, 0.6, 0.19, 0.5, 2 * MS)), "once, though both ends are hit"
    assert first_link(4) is None
    assert first_link(6) == (7.5 * MS, 1e8, 1e8, 0.2, 0.1, 0.5, MS)


def test_a_cut_is_a_state_of_its_link_and_makes_two_contacts() -> None:
    plan = planned(CUT)
    link = stretches(plan)[0][0]
    events, contacts = plan.link_plan.events, plan.contacts.to_pydict()
    mine = [(k, LinkState(state)) for k, of, state in zip(events.k, events.link, events.state) if of == link]
    assert mine == [(0, LinkState.TRACKING), (10, LinkState.FAULT), (15, LinkState.TRACKING)]
    columns = zip(contacts["link"], contacts["start_ns"], contacts["end_ns"], strict=True)
    times = [(start, end) for of, start, end in columns if of == link]
    assert times == [(0, 10 * NS_PER_S), (15 * NS_PER_S, 60 * NS_PER_S)]
    assert plan.step_check == planned().step_check, "the sky has no more gaps by that"


def test_a_link_that_is_cut_all_the_time_is_told_by_nothing() -> None:
    plan = planned(fault(links=["p00s00 - p00s01"], at="0 s", effect="cut"))
    link = stretches(plan)[0][0]
    assert link not in plan.links["link"].to_pylist()
    assert plan.links.num_rows == len(plan.link_plan.links.a) - 1
    ends = initial_ends(plan.link_plan, 0)
    assert (ends["rate_bit_s"] > 0).all()


def test_a_plan_with_faults_comes_back_from_its_file(tmp_path: Path) -> None:
    plan = planned(CUT, fault("storm", satellites="all", mtbf="50 s", mttr="3 s", effect="power-off", known="never"))
    write_plan(plan.link_plan, tmp_path / "plan.parquet")
    again = read_plan(tmp_path / "plan.parquet")
    assert again.digest() == plan.digest != planned().digest
    for k in range(60):
        assert same_rows(again, plan.link_plan, k) and same_rows(again.known, plan.link_plan.known, k)


# What is known


def test_routes_follow_what_is_known() -> None:
    plan = planned(CUT)
    sky = plan_routes(planned().link_plan)
    finder, without = PathFinder(plan.link_plan, plan_routes(plan.link_plan)), PathFinder(planned().link_plan, sky)
    a, b = plan.index("p00s00"), plan.index("p00s01")
    for k in range(60):
        path, usual = finder.path(a, b, k), without.path(a, b, k)
        assert path and usual
        assert (path.links == usual.links) == (k < 13 or k >= 18), "3 s late at both ends"
        assert bool(path.cut) == (10 <= k < 13)
    assert plan.path_delay_ns("p00s00", "p00s01").mask.nonzero()[0].tolist() == [10, 11, 12]
    named = plan.path("p00s00", "p00s01", 11)
    assert named and (named.hops, named.cut) == (1, (0,))
    assert named.hop_delays_ns == (without.path(a, b, 11).delay_ns,)
    assert plan.path("p00s00", "p00s01", 10) == plan.path("p00s00", "p00s01", 10 - 60)


@pytest.mark.parametrize(("known", "mask"), [("at once", []), ("never", [10, 11, 12, 13, 14])])
def test_news_come_at_once_or_never(known: str, mask: list[int]) -> None:
    plan = planned(CUT.replace("after 3 s", known))
    unreached = np.ma.getmaskarray(plan.path_delay_ns("p00s00", "p00s01"))
    assert unreached.nonzero()[0].tolist() == mask
    assert (plan.link_plan.known is plan.link_plan) == (known == "at once")


def test_nodes_without_power_are_known_when_the_news_are_there() -> None:
    off = {"at": "10 s", "for_": "5 s", "effect": "power-off", "reboot": "2 s", "known": "after 4 s"}
    faults = planned(fault(satellites=["p01s00"], **off), CUT).link_plan.faults
    known = [k for k in range(60) if faults.nodes_known_down(k).tolist() == [6]]
    assert known == list(range(14, 21))
    assert all(faults.nodes_known_down(k).size == 0 for k in set(range(60)) - set(known))


def test_an_outlook_knows_what_is_known_and_foresees_no_fault() -> None:
    plan, sky = (planned(*faults).link_plan for faults in ((fault(links=["gs - *"], at="20 s", for_="5 s", effect="cut",
                                                                  known="after 2 s"),), ()))  # fmt: skip
    outlooks = [plan_outlook(one, plan_routes(one), ["gs"], plan.nodes.names[:24]) for one in (plan, sky)]
    same = [
        k
        for k in range(60)
        if all(
            np.array_equal(getattr(outlooks[0], name)[k], getattr(outlooks[1], name)[k])
            for name in ("satellite", "delay_ns", "overhead_until_ns")
        )
    ]
    assert same == [*range(22), *range(27, 60)]


def test_replacing_a_part_of_a_plan_keeps_its_faults() -> None:
    plan = planned(CUT).link_plan
    assert replace(plan, rate_scale=0.5).faults is plan.faults


def test_the_page_about_radiation_shows_the_faults_of_its_scenario_and_its_sums_are_right() -> None:
    docs = Path(__file__).parents[2] / "docs"
    page, scenario = (docs / "radiation.md").read_text(), (docs / "examples" / "radiation.toml").read_text()
    shown, given = (parse_scenario(scenario.split("[[fault]]")[0] + text, "test").fault for text in (
        page.split("```toml\n")[1].split("```")[0], "[[fault]]" + scenario.split("[[fault]]", 1)[1],
    ))  # fmt: skip
    assert shown == given
    model = read_header(resolve_model("bundled"))
    bits = 8 * sum(tensor.size_byte for tensor in model.tensors)
    assert f"{bits:,} bits" in page
    every_ns = 86_400 * NS_PER_S / (4.04e-7 * bits)
    anomaly, storm = given
    assert anomaly.mtbf_ns == pytest.approx(0.1 / 0.9 * every_ns, rel=0.01)
    assert storm.mtbf_ns == pytest.approx(every_ns / 0.1, rel=0.01)


def test_faults_between_instants_and_faults_that_strike_nothing_are_warned_of():
    text = head("warned", duration="6 s", step="2 s") + shell(8, 1, 0, lasers="ring")
    for name, keys in (
        ("late", {"at": ["2 s", "3 s"], "for": "500 ms"}),
        ("exact", {"at": "2 s", "for": "2 s"}),
        ("rare", {"mtbf": "1000 h", "for": "4 s"}),
    ):
        text += table("[fault]", name=name, satellites="all", effect="cut", **keys)
    warnings = [line for line in plan_network(parse_scenario(text, "warned")).warnings if line.startswith("fault ")]
    assert len(warnings) == 2
    assert (
        "fault late: at and for are no multiple of the step (2 s), but faults begin and end at instants" in warnings[0]
    )
    assert "fault rare: strikes nothing in this run" in warnings[1]


def test_too_many_events_are_refused_also_of_links_and_of_all_faults_together(monkeypatch):
    monkeypatch.setenv("ISL_EMU_MOST_FAULTS", "100")
    sky = head("many", duration="10 s") + shell(8, 1, 0, altitude="1200 km", lasers="ring")

    def fault(name: str, what: str, **keys: object) -> str:
        return table("[fault]", name=name, effect="cut", **{what: ["*"] if what == "satellites" else ["* - *"]}, **keys)

    often = {"every": "1 s", "for": "1 s"}
    with pytest.raises(ScenarioError, match="fault b: with all others comes to about 160 events of faults"):
        parse_scenario(sky + fault("a", "satellites", **often) + fault("b", "satellites", **often), "many")
    with pytest.raises(ScenarioError, match="fault a: comes to about 160 events of faults"):
        plan_network(parse_scenario(sky + fault("a", "links", every="500 ms", **{"for": "1 s"}), "many"))
    one = fault("a", "satellites", count=1, **often) + fault("b", "satellites", fraction=0.5, **often)
    assert len(plan_network(parse_scenario(sky + one, "many")).link_plan.faults.fault)
    with pytest.raises(ScenarioError, match="1,?000"):
        parse_scenario(
            sky + fault("a", "satellites", mtbf="1 h", profile=[[f"{n} s", 1.0] for n in range(1001)]), "many"
        )


@pytest.mark.parametrize("handover", ["highest-elevation", "longest-contact"])
@pytest.mark.parametrize("effect", ["cut", "power-off"])
def test_a_station_turns_away_from_a_satellite_as_soon_as_it_is_known_to_be_dead(handover: str, effect: str) -> None:
    dense = shell(72, 6, 1, altitude="1200 km", inclination="60 deg", lasers="none")
    tower = station("tower", latitude="0 deg", longitude="0 deg", antennas=1, handover=handover)
    base = head("dense", duration="60 s") + dense + tower

    def at_station(plan: PlannedNetwork) -> list[str | None]:
        links, rows = plan.link_plan.links, plan.link_plan
        names = [plan.nodes[a] if plan.nodes[b] == "tower" else None for a, b in zip(links.a, links.b, strict=True)]
        found = [rows.row_link[first:end] for first, end in zip(rows.row_start, rows.row_start[1:], strict=False)]
        return [next(filter(None, (names[link] for link in each)), None) for each in found]

    before = at_station(planned(base=base))
    k = next(k for k in range(1, 40) if len(set(before[k : k + 21])) == 1 and before[k])
    dying = before[k]
    death = fault(satellites=[dying], at=f"{k} s", for_="10 s", effect=effect, known="after 3 s")
    plan = planned(death, base=base)
    seen = at_station(plan)
    assert seen[:k] == before[:k]
    assert seen[k : k + 3] == [None] * 3, "it is dead, and nobody knows"
    assert not {dying, None} & set(seen[k + 6 : k + 13]), "it has turned to another, until it knows"
    assert (set(seen[k + 13 : k + 20]) == {dying}) == (handover == "highest-elevation")
    assert plan_network(plan.scenario).digest == plan.digest
    never = planned(fault(satellites=[dying], at=f"{k} s", effect=effect, known="never"), base=base)
    assert at_station(never)[k : k + 20] == [None] * 20


def test_what_does_not_start_again_after_a_loss_of_power_is_told_of_before_the_run() -> None:
    split = table("[split]", satellites=["p00s00", "p00s01"])
    job = table("[training]", name="job", satellites=["p01s0[0-2]"]) + table("training.real")
    text = PLANES + split + job
    text += fault("dark", satellites=["p00s01", "p01s0[12]", "p02s*"], at="1 s", for_="1 s", effect="power-off")
    text += fault("cut", satellites=["p00s00"], at="1 s", for_="1 s", effect="cut")
    plan = plan_network(parse_scenario(text, "test"))
    lost = lost_for_good(Source(plan.scenario, plan.link_plan, plan_routes(plan.link_plan, None, []), ()))
    assert [sentence.partition("; ")[0] for sentence in lost] == [
        "fault dark: takes p00s01 the power, but its part of a split model does not start again afterwards",
        "fault dark: takes p01s01 and 1 more the power, but its training with PyTorch does not start again afterwards",
    ]


def test_what_is_expected_of_a_plan_has_its_places_and_terrestrial_lines_too():
    text = (Path(__file__).parents[2] / "topologies" / "three-body.toml").read_text().replace('"120 s"', '"20 s"')
    text += '[[place]]\nname = "pop"\nsite = "berlin"\n[[terrestrial]]\nbetween = ["gs-sanya", "pop"]\n'
    text += '[[fault]]\nname = "a"\nsatellites = ["p00s03"]\neffect = "power-off"\nat = "5 s"\nfor = "5 s"\n'
    text += 'known = "at once"\n'
    scenario = parse_scenario(text, "the test")
    plan = plan_links(scenario, format_scenario(scenario))
    expected = plan_expected(scenario, plan, 0)
    assert expected.nodes.names == plan.nodes.names
    assert (expected.links.kind == LinkKind.TERRESTRIAL).sum() == (plan.links.kind == LinkKind.TERRESTRIAL).sum() == 1
