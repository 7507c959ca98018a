"""Groups of satellites that compute: who is in which, and what a change to the scenario does to them."""

from __future__ import annotations

import pytest

from isl_emu.errors import ScenarioError
from isl_emu.scenario.matching import matching
from isl_emu.scenario.parse import format_scenario, parse_scenario, with_changes
from tests.scenarios import SMALL

TWO = """
[[compute]]
satellites = ["p00s03", "p00s0[01]"]
cpus = 0.5
[[compute]]
satellites = ["p00s02"]
server = "modelled"
board = "three-body"
"""


def test_a_single_table_is_one_group() -> None:
    scenario = parse_scenario(SMALL + "[compute]\ncpus = 0.25\n", "small")
    assert [group.cpus for group in scenario.compute] == [0.25]
    assert scenario.computing_satellites == scenario.satellite_names
    assert parse_scenario(format_scenario(scenario), "again") == scenario
    assert parse_scenario(SMALL, "small").compute == ()


def test_groups_are_found_by_name_and_pattern_in_node_order() -> None:
    scenario = parse_scenario(SMALL + TWO, "small")
    assert scenario.computing_satellites == ("p00s00", "p00s01", "p00s02", "p00s03")
    assert scenario.compute_of("p00s01").cpus == 0.5
    assert scenario.compute_of("p00s02").server == "modelled"
    assert scenario.compute_of("p00s04") is None
    assert scenario.matching_satellites(["*s01", "p00s00"]) == ("p00s00", "p00s01")
    assert scenario.matching_satellites("all") == scenario.satellite_names
    assert parse_scenario(format_scenario(scenario), "again") == scenario


def test_patterns_match_as_in_a_shell() -> None:
    names = ("p00s00", "p00s01", "p01s00")
    assert matching(("p0?s00",), names) == ("p00s00", "p01s00")
    assert matching(("p01*", "p00s01"), names) == ("p00s01", "p01s00")
    assert matching(("p02*",), names) == ()
    assert matching(("p00*", "!p00s00"), names) == ("p00s01",)
    assert matching(("!p0?s00", "*"), names) == ("p00s01",)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('satellites = ["p07*"]', r"compute.satellites has 'p07\*', but it matches no satellite"),
        ('satellites = ["p00s0O"]', r"^small: compute\[0\].satellites\[0\] is 'p00s0O', but it must be a node name"),
        ('satellites = ["p*", "!p00s77"]', "compute.satellites names 'p00s77', but there is no such satellite"),
        ('server = "fast"', r"compute\[0\].server is 'fast', but it should be 'real', 'throttled', 'modelled' or"),
    ],
)
def test_a_group_that_cannot_be_is_refused(text: str, sentence: str) -> None:
    with pytest.raises(ScenarioError, match=sentence):
        parse_scenario(f"{SMALL}[compute]\n{text}\n", "small")


def test_no_satellite_is_in_two_groups() -> None:
    twice = TWO.replace('["p00s02"]', '["p00s02", "p00s00"]')
    with pytest.raises(ScenarioError, match=r"compute\[1\].satellites has 'p00s00', but compute\[0\].sat"):
        parse_scenario(SMALL + twice, "small")


def test_an_unknown_list_of_satellites_is_refused_by_name() -> None:
    with pytest.raises(ScenarioError, match="names 'p00s77', but there is no such satellite"):
        parse_scenario(SMALL, "small").matching_satellites(["p00s77"])


def test_a_model_goes_to_every_group_that_loads_one() -> None:
    changed = with_changes(parse_scenario(SMALL + TWO, "small"), compute={"model": "/tmp/other.gguf"})
    assert [group.model for group in changed.compute] == ["/tmp/other.gguf", "bundled"]
    everywhere = with_changes(changed, compute={"context_tokens": 2048})
    assert [group.context_tokens for group in everywhere.compute] == [2048, 2048]


def test_a_model_that_nobody_loads_is_refused() -> None:
    modelled = parse_scenario(SMALL + '[compute]\nserver = "modelled"\nboard = "three-body"\n', "small")
    with pytest.raises(ScenarioError, match=r"no \[\[compute\]\] group loads a model"):
        with_changes(modelled, compute={"model": "/tmp/other.gguf"})


def test_the_model_of_a_run_goes_to_all_that_loads_one() -> None:
    split = '[[split]]\nsatellites = ["p00s0[45]"]\n'
    changed = with_changes(parse_scenario(SMALL + TWO + split, "small"), model="/tmp/other.gguf")
    assert [group.model for group in changed.compute] == ["/tmp/other.gguf", "bundled"]
    assert changed.split[0].model == "/tmp/other.gguf"
    alone = with_changes(parse_scenario(SMALL + split, "small"), model="/tmp/other.gguf")
    assert alone.split[0].model == "/tmp/other.gguf"
    with pytest.raises(ScenarioError, match="model is set, but nothing in the scenario loads a file of weights"):
        with_changes(parse_scenario(SMALL, "small"), model="/tmp/other.gguf")
