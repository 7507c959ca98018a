from __future__ import annotations

import numpy as np
import pytest

from isl_emu.errors import ScenarioError
from isl_emu.scenario.parse import format_scenario, load_scenario, parse_scenario, with_changes
from tests.scenarios import SMALL, TOPOLOGIES

SHIPPED = sorted(TOPOLOGIES.glob("*.toml"))
THREE_BODY = TOPOLOGIES / "three-body.toml"


def _problems(text: str) -> str:
    with pytest.raises(ScenarioError) as caught:
        parse_scenario(text, "some.toml")
    assert all(problem.startswith("some.toml: ") for problem in caught.value.problems)
    return str(caught.value)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_scenario_survives_the_round_trip(path):
    scenario = load_scenario(path)
    assert scenario.name == path.stem
    assert parse_scenario(format_scenario(scenario), "resolved") == scenario


def test_a_small_scenario_gets_defaults():
    scenario = parse_scenario(SMALL, "small")
    assert scenario.time.step_ns == 1_000_000_000
    assert scenario.satellite_names[:2] == ("p00s00", "p00s01")
    assert scenario.station_names == ("gs-berlin",)
    assert scenario.computing_satellites == ()


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('name = "small"', 'name = "small"\nsede = 3', "sede is not a known key, but only these are"),
        ('name = "small"', 'name = "small"\nsede = 3', "did you mean seed?"),
        ('"525 km"', '"525"', "shell[0].altitude is '525' without a unit"),
        ('"525 km"', '"-525 km"', "shell[0].altitude is -525 km, but the least allowed is 160 km"),
        ('"525 km"', "525", "shell[0].altitude is 525, but a length is written with its unit"),
        ('"60 s"', '"1e30 h"', "but the most allowed is 8784 h"),
        ('"60 s"', '"300 h"\nstep = "1 ms"', "time has a duration that comes to about 1,080,000,000 instants"),
        ('"1 Gbit/s"', '"1e30 Gbit/s"', "station[0].uplink is"),
        ("total = 12", "total = 120000000", "shell[0].walker.total is 120000000"),
        ("total = 12", "total = 0", "shell[0].walker.total is 0"),
        ("planes = 1", "planes = 5", "shell[0].walker: total is 12, but all 5 planes hold equally many"),
        ("planes = 1", "planes = 3, phasing = 3", "phasing is 3, but f is at most p - 1 = 2"),
        ("planes = 1", "planes = 3, phasing = -1", "shell[0].walker.phasing is -1"),
        ('"52.5 deg"', '"95 deg"', "station[0].latitude is 95 deg, but the most allowed is 90 deg"),
        ('topology = "ring"', 'topology = "torus"', "lasers.topology is 'torus', but it should be 'ring', '+grid', "),
        ('uplink = "1 Gbit/s"\n', "", "station[0].uplink is missing"),
        ('"1 Gbit/s"', '"1 Gbps"', "has the unit 'Gbps'"),
        ("T00:00:00Z", "T00:00:00", "without a time zone"),
        ('duration = "60 s"', 'duration = "60 s"\nstep = "2 min"', "step is longer than duration"),
        ('"gs-berlin"', '"p00s03"', "node 'p00s03' occurs 2 times"),
        ('"gs-berlin"', '"Berlin"', "station[0].name is 'Berlin', but a node name"),
        ("[[station]]", '[compute]\nsatellites = ["p00s12"]\n[[station]]', "there is no such satellite; did you mean"),
        ("[[station]]", '[probes]\npairs = [["p00s00", "gs-rome"]]\n[[station]]', "there is no such node"),
        ("[[station]]", '[probes]\npairs = [["p00s00", "p00s00"]]\n[[station]]', "needs two nodes"),
        ("[[station]]", '[questions]\nmean_interval = "1 s"\nprompts = ["?"]\n[[station]]', "no satellite runs"),
        ("[[station]]", '[questions]\nmean_interval = "1 s"\nprompts = []\n[[station]]', "questions.prompts"),
        ("[[station]]", '[routing]\npolicy = "longest"\n[[station]]', "routing.policy is 'longest', but"),
        ('name = "small"', 'name = "small', "is not valid TOML"),
    ],
)  # fmt: skip
def test_a_broken_scenario_is_refused_with_its_place(old, new, complaint):
    assert SMALL.count(old) >= 1
    assert complaint in _problems(SMALL.replace(old, new, 1))


def test_all_problems_are_reported_at_once():
    broken = SMALL.replace('"525 km"', '"525"').replace('"52.5 deg"', '"95 deg"').replace('"60 s"', '"60"')
    assert len(_problems(broken).splitlines()) == 3


def test_raan_and_ltan_exclude_each_other():
    both = SMALL.replace("[shell.lasers]", 'raan = "10 deg"\nltan = "06:00"\n[shell.lasers]')
    assert "raan and ltan are both given" in _problems(both)


def test_a_missing_file_is_an_error_with_a_way_out(tmp_path):
    with pytest.raises(ScenarioError, match="cannot be read"):
        load_scenario(tmp_path / "none.toml")


def test_changes_replace_single_values_and_are_checked():
    scenario = load_scenario(THREE_BODY)
    changed = with_changes(scenario, seed=7, time={"duration": "60 s"})
    assert (changed.seed, changed.time.duration_ns) == (7, 60_000_000_000)
    assert changed.time.start == scenario.time.start
    with pytest.raises(ScenarioError, match="duration"):
        with_changes(scenario, time={"duration": "60"})


def test_an_empty_list_of_questions_is_refused_in_our_words():
    text = SMALL + '[compute]\n[questions]\nmean_interval = "1 s"\nprompts = []\n'
    assert _problems(text) == "some.toml: questions.prompts has 0 items, but it needs 1; add one"


def test_an_option_does_not_add_what_the_scenario_has_not():
    with pytest.raises(ScenarioError, match=r"compute.model is set, but the scenario has no \[compute\]"):
        with_changes(parse_scenario(SMALL, "small"), compute={"model": "any.gguf"})


def test_none_takes_a_key_or_a_table_away():
    scenario = load_scenario(THREE_BODY)
    assert scenario.questions is not None
    without = with_changes(scenario, questions=None)
    assert without.questions is None and without.compute == scenario.compute
    arrivals = {"arrivals": "single-stream", "mean_interval": None, "count": 3}
    assert with_changes(scenario, questions=arrivals).questions.mean_interval_ns is None
    boards = with_changes(scenario, compute={"pace_model": None, "bits": None}).compute
    assert {group.pace_model for group in boards} == {None}
    with pytest.raises(ScenarioError, match="time.duration is missing, but it is required"):
        with_changes(scenario, time={"duration": None})


def test_a_change_of_what_is_no_key_or_no_table_is_told():
    scenario = parse_scenario(SMALL, "small")
    with pytest.raises(ScenarioError, match="option: quetsions is not a known key.*did you mean questions"):
        with_changes(scenario, quetsions=None)
    with pytest.raises(ScenarioError, match="option: seed is .*, but it is no table"):
        with_changes(scenario, seed={"of": 3})
    with pytest.raises(ScenarioError, match="cannot be written as TOML"):
        with_changes(scenario, description=object())
    assert with_changes(scenario, seed=np.int64(7), rate_scale=np.float64(0.5)).seed == 7
