from __future__ import annotations

import math
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest

import isl_emu
from isl_emu.errors import ScenarioError
from isl_emu.linkplan.plan import LinkKind
from isl_emu.routing.forwarding import plan_routes
from isl_emu.routing.paths import PathFinder
from isl_emu.scenario.parse import format_scenario, parse_scenario, with_changes
from tests.plans import MS, make_plan
from tests.scenarios import head, shell, table

TOPOLOGIES = Path(__file__).parents[2] / "topologies"
SECOND = 1_000_000_000


@pytest.fixture(scope="module")
def star() -> isl_emu.Plan:
    scenario = isl_emu.load(TOPOLOGIES / "iridium-star.toml")
    return isl_emu.plan(scenario, start="2026-03-20T15:00:00Z", duration_s=300, step_s=2.5)


def _by_hand(satellites: int, stations: list[str], instants: list[dict]) -> isl_emu.Plan:
    scenario = with_changes(isl_emu.load(TOPOLOGIES / "iridium-star.toml"), probes={"pairs": []})
    return isl_emu.Plan(make_plan(satellites, stations, instants), scenario)


def test_importing_the_package_imports_nothing_slow():
    check = "import sys, isl_emu; sys.exit(any(name in sys.modules for name in ('numpy', 'pyarrow', 'isl_emu.api')))"
    assert subprocess.run([sys.executable, "-c", check], cwd=TOPOLOGIES.parent, check=False).returncode == 0


def test_public_names_exist_and_others_do_not():
    assert all(getattr(isl_emu, name) for name in isl_emu.__all__)
    assert set(isl_emu.__all__) <= set(dir(isl_emu))
    with pytest.raises(AttributeError, match="no attribute 'plans'"):
        _ = isl_emu.plans


def test_start_duration_step_and_seed_replace_those_of_the_scenario(star):
    grid = star.link_plan.grid
    assert (grid.start, grid.step_ns, grid.count) == (
        datetime(2026, 3, 20, 15, tzinfo=timezone.utc), 2_500_000_000, 120
    )  # fmt: skip
    assert star.scenario == parse_scenario(star.link_plan.scenario_toml, "the plan's own text")
    assert isl_emu.plan(star.scenario, duration_s=5, seed=7).scenario.seed == 7
    same = isl_emu.plan(isl_emu.load(TOPOLOGIES / "iridium-star.toml"), start=grid.start, duration_s=300, step_s=2.5)
    assert same.digest == star.digest


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"duration_s": 0}, "time.duration"),
        ({"step_s": -1}, "time.step"),
        ({"step_s": 1e6}, "step is longer than duration"),
        ({"start": "noon"}, "start: is 'noon', but"),
        ({"start": datetime(2026, 3, 20)}, "time.start"),
        ({"seed": -1}, "seed"),
    ],
)
def test_times_that_cannot_be_are_refused(star, changes, complaint):
    with pytest.raises(isl_emu.ScenarioError, match=complaint):
        isl_emu.plan(star.scenario, **changes)


def test_times_are_the_instants(star):
    assert star.times[0] == np.datetime64("2026-03-20T15:00:00")
    assert star.times[1] == np.datetime64("2026-03-20T15:00:02.5")
    assert star.times.shape == (120,)


def test_path_delays_are_those_of_the_routes_of_all_nodes(star):
    finder = PathFinder(star.link_plan, plan_routes(star.link_plan, star.scenario.routing))
    for a, b in (("gs-svalbard", "gs-tempe"), ("p03s05", "gs-tempe"), ("gs-tempe", "p00s00"), ("p01s01", "p04s04")):
        delay_ns = star.path_delay_ns(a, b)
        assert delay_ns.shape == (120,)
        assert delay_ns.dtype == np.int64
        for k in range(0, 120, 7):
            there = finder.path(star.nodes.index(a), star.nodes.index(b), k)
            path = star.path(a, b, k)
            assert (path is None) == (there is None) == bool(np.ma.getmaskarray(delay_ns)[k])
            if path:
                assert path.delay_ns == delay_ns[k] == there.delay_ns
                assert path.nodes == tuple(star.nodes[node] for node in there.nodes)
                assert path.hops == there.hops


def test_a_single_instant_and_the_series_agree(star):
    fresh = isl_emu.Plan(star.link_plan, star.scenario)
    alone = [fresh.path("gs-tempe", "gs-punta-arenas", k) for k in (0, 60, -1)]
    fresh.path_delay_ns("gs-tempe", "gs-punta-arenas")
    assert alone == [fresh.path("gs-tempe", "gs-punta-arenas", k) for k in (0, 60, -1)]


@pytest.mark.parametrize("policy", ["stable", "fewest-hops"])
def test_paths_follow_the_policy_of_the_scenario(star, policy):
    plan = isl_emu.Plan(star.link_plan, with_changes(star.scenario, routing={"policy": policy}))
    finder = PathFinder(plan.link_plan, plan_routes(plan.link_plan, plan.scenario.routing))
    ends = star.nodes.index("gs-tempe"), star.nodes.index("gs-svalbard")
    alone = [plan.path("gs-tempe", "gs-svalbard", k).delay_ns for k in (60, 119)]
    assert alone == plan.path_delay_ns("gs-tempe", "gs-svalbard")[[60, 119]].tolist()
    assert alone == [finder.path(*ends, k).delay_ns for k in (60, 119)]


def test_unreachable_is_masked_and_stations_never_forward():
    plan = _by_hand(2, ["gs-one"], [{(0, 2): MS, (1, 2): MS}, {(0, 1): 5 * MS, (0, 2): MS, (1, 2): MS}, {(0, 2): MS}])
    delay_ns = plan.path_delay_ns("p00s00", "p00s01")
    assert delay_ns.tolist() == [None, 5 * MS, None]
    assert plan.path("p00s00", "p00s01", 0) is None
    assert plan.path_delay_ns("p00s00", "p00s00").tolist() == [0, 0, 0]


def test_a_route_too_long_for_ip_is_no_path_and_that_is_said():
    text = (
        head("long", duration="1 s")
        + shell(520)
        + table("probes", pairs=[["p00s000", "p00s255"], ["p00s000", "p00s260"]])
    )
    plan = isl_emu.plan(parse_scenario(text, ""))
    assert plan.path("p00s000", "p00s255", 0).hops == 255
    assert plan.path("p00s000", "p00s260", 0) is None
    why = "p00s000 cannot reach p00s260: the route has 260 links, but IP carries a packet over 255 at most"
    assert plan.no_path("p00s000", "p00s260", 0) == why
    assert [warning for warning in plan.warnings if "255" in warning] == [
        f"{why}; name nearer ends, or choose another routing policy"
    ]


def test_of_equal_paths_the_one_over_the_lower_link_is_taken():
    square = {(0, 1): MS, (0, 2): MS, (1, 3): MS, (2, 3): MS}
    plan = _by_hand(4, [], [square])
    assert plan.path("p00s00", "p00s03", 0) == isl_emu.NamedPath(("p00s00", "p00s01", "p00s03"), (MS, MS))


@pytest.mark.parametrize(
    ("ask", "complaint"),
    [
        (lambda plan: plan.path_delay_ns("gs-temple", "p00s00"), "did you mean gs-tempe"),
        (lambda plan: plan.path("p00s00", "p99s99", 0), "no such node"),
        (lambda plan: plan.path("p00s00", "p00s01", 120), "choose one from 0 to 119"),
        (lambda plan: plan.save("/nowhere/at/all.parquet"), "cannot be written"),
    ],
)
def test_what_is_not_there_is_named(star, ask, complaint):
    with pytest.raises(isl_emu.ScenarioError, match=complaint):
        ask(star)


def test_a_saved_plan_comes_back_and_is_the_same_bytes_again(star, tmp_path):
    first, second, third = (tmp_path / f"{number}.parquet" for number in range(3))
    star.save(first)
    again = isl_emu.read_plan(first)
    assert again.digest == star.digest
    assert again.scenario == star.scenario
    again.save(second)
    isl_emu.plan(star.scenario).save(third)
    assert first.read_bytes() == second.read_bytes() == third.read_bytes()


def test_the_tables_are_labelled_and_agree_with_each_other(star):
    links, contacts, events = star.links.to_pylist(), star.contacts.to_pylist(), star.events.to_pylist()
    assert len(links) == len(star.link_plan.links.a)
    assert {row["kind"] for row in links} == {"intra-plane", "inter-plane", "ground"}
    up_ns = {row["link"]: 0 for row in links}
    for row in contacts:
        up_ns[row["link"]] += row["end_ns"] - row["start_ns"]
        link = links[row["link"]]
        assert (link["a"], link["b"]) == (row["a"], row["b"])
        assert link["delay_min_ns"] <= row["delay_min_ns"] <= row["delay_max_ns"] <= link["delay_max_ns"]
    for row in links:
        assert row["up_ratio"] * star.link_plan.grid.duration_ns == pytest.approx(up_ns[row["link"]])
    begun = sorted((row["start_ns"], row["link"]) for row in contacts)
    assert begun == sorted((row["t_ns"], row["link"]) for row in events if row["state"] == "tracking")
    first = contacts[0]
    assert first["start"].isoformat() == "2026-03-20T15:00:00+00:00"


def test_events_replay_exactly_to_the_snapshots(star):
    """From the table alone: apply each event in order, and the links that track are those with a row."""
    plan, rows = star.link_plan, star.events.to_pylist()
    assert any(row["t_ns"] > 0 for row in rows)
    tracking, at = set(), 0
    for k in range(plan.grid.count):
        while at < len(rows) and rows[at]["t_ns"] <= k * plan.grid.step_ns:
            (tracking.add if rows[at]["state"] == "tracking" else tracking.discard)(rows[at]["link"])
            at += 1
        assert sorted(tracking) == plan.snapshot(k).link.tolist()
    assert at == len(rows)


def test_warnings_are_those_of_the_step(star):
    assert star.warnings == star.step_check.warnings
    blinking = {(0, 1): MS}
    assert _by_hand(2, [], [{}, blinking, {}, blinking, {}]).warnings


def test_the_plan_carries_the_resolved_scenario(star):
    assert star.link_plan.scenario_toml == format_scenario(star.scenario)
    assert "Plan iridium-star: 69 nodes" in repr(star)
    assert (star.link_plan.links.kind == LinkKind.GROUND).any()


@pytest.mark.parametrize("seconds", [math.nan, math.inf, -math.inf, "60 s", "5", [], 1j])
@pytest.mark.parametrize("name", ["duration_s", "step_s"])
def test_what_is_no_number_of_seconds_is_our_error(star, name, seconds):
    with pytest.raises(ScenarioError, match=f"{name}: is .*, but it is a number of seconds"):
        isl_emu.plan(star.scenario, **{name: seconds})


def test_a_scenario_may_be_given_by_its_path(tmp_path):
    text = head("small", duration="2 s") + shell(12)
    (tmp_path / "small.toml").write_text(text)
    for path in (tmp_path / "small.toml", str(tmp_path / "small.toml")):
        assert isl_emu.plan(path, duration_s=1).digest == isl_emu.plan(parse_scenario(text, ""), duration_s=1).digest
    with pytest.raises(ScenarioError, match="none.toml: cannot be read"):
        isl_emu.plan(tmp_path / "none.toml")
    with pytest.raises(ScenarioError, match="cannot be read"):
        isl_emu.plan("\0")


@pytest.mark.parametrize("k", [1.5, math.nan, "0", None])
def test_an_instant_is_a_whole_number(star, k):
    with pytest.raises(ScenarioError, match="instant: is"):
        star.path(star.nodes[0], star.nodes[1], k)


def test_a_node_is_a_name(star):
    with pytest.raises(ScenarioError, match="node: is 3"):
        star.path_delay_ns(3, star.nodes[0])


@pytest.mark.parametrize(("key", "value"), [("machine", "moon"), ("clock", "sun")])
def test_a_run_is_somewhere_and_by_a_clock_that_there_is(star, key, value):
    with pytest.raises(ScenarioError, match=f"{key}: is '{value}', but it is"):
        isl_emu.run(star, **{key: value})


@pytest.mark.parametrize("figure", ["duration_s", "step_s", "demand"])
@pytest.mark.parametrize("value", [math.nan, math.inf, "5"])
def test_a_balance_is_of_numbers(figure, value):
    with pytest.raises(ScenarioError, match="but it is a number"):
        isl_emu.power_balance("dawn-dusk-energy", **{figure: value})


def test_results_are_read_by_text_wherever_one_is_and_damage_is_told(tmp_path, monkeypatch):
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "fidelity.json").write_text('{"verdict": "valid"}')
    (folder / "requests.parquet").write_bytes(b"PAR1 cut")
    monkeypatch.chdir(tmp_path)
    results = isl_emu.RunResults("results")
    monkeypatch.chdir("/")
    assert results.valid and results.path == folder and results.tables == ("requests",)
    with pytest.raises(ScenarioError, match="requests.parquet: is not readable as Parquet"):
        results.table("requests")
    with pytest.raises(ScenarioError, match="summary.txt: cannot be read"):
        str(results.summary)
