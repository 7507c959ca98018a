"""What a scenario may say about training, and what it may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from isl_emu.errors import ScenarioError
from isl_emu.scenario.parse import format_scenario, load_scenario, parse_scenario
from isl_emu.scenario.training import planes_of, training_satellites

TOPOLOGY = Path(__file__).parents[3] / "topologies" / "training.toml"
HEAD = TOPOLOGY.read_text().split("[[training]]", maxsplit=1)[0]
MODELLED = '[training.modelled]\ncompute_time = "1 s"\ngradient = "1 MB"\n'


def training(*lines: str, kind: str = MODELLED) -> str:
    return "\n".join(["[[training]]", *lines, kind])


def problems(*tables: str) -> str:
    with pytest.raises(ScenarioError) as error:
        parse_scenario(HEAD + "\n".join(tables), "here")
    return str(error.value)


def test_the_shipped_scenario_survives_its_own_text() -> None:
    scenario = load_scenario(TOPOLOGY)
    assert parse_scenario(format_scenario(scenario), "again") == scenario
    (job,) = scenario.training
    assert job.modelled.exchanged_byte == 2_000_000_000
    assert len(training_satellites(scenario, job)) == 24
    assert planes_of(scenario)["p01s03"] == ("dawn", 1)


def test_satellites_keep_the_order_of_the_list() -> None:
    scenario = parse_scenario(HEAD + training('satellites = ["p02s0[01]", "p00s07", "p02s00"]'), "here")
    assert training_satellites(scenario, scenario.training[0]) == ("p02s00", "p02s01", "p00s07")


@pytest.mark.parametrize(
    ("table", "found"),
    [
        (training('satellites = ["p00s00"]'), "training[0].satellites names 1, but training together needs two"),
        (training('satellites = ["p00s00", "p09*"]'), "training[0].satellites has 'p09*', but it matches no satellite"),
        (training('satellites = ["p00s00", "p0s00"]'), "names 'p0s00', but there is no such satellite"),
        (training(kind=""), "has both or neither of modelled and real"),
        (training(kind=MODELLED + "[training.real]\n"), "has both or neither of modelled and real"),
        (training(kind='[training.modelled]\ncompute_time = "1 s"'), "has neither gradient nor parameters"),
        (training(kind='[training.modelled]\ngradient = "1 MB"'), "has no compute_time"),
        (training(kind=MODELLED + 'board = "h100-pcie"'), "has compute_time and board"),
        (training(kind=MODELLED + 'board = "h200"'), "is 'h200', but the boards are"),
        (training('collective = "tree"', kind="[training.real]"), "gloo sums real gradients in a ring"),
        (training(kind="[training.real]\nwidth = 30"), "has width 30 and 4 heads"),
        (
            training('satellites = ["p00s0*", "p01s00"]', 'collective = "hierarchical"'),
            "hierarchical with 1 to 8 satellites of a plane, but it needs equally many",
        ),
    ],
)
def test_what_cannot_be_is_said(table: str, found: str) -> None:
    assert found in problems(table)


def test_a_satellite_trains_in_one_job() -> None:
    text = problems(training('name = "a"'), training('name = "b"', 'satellites = ["p00s00", "p00s01"]'))
    assert "training[1].satellites has 'p00s00', but a trains on it" in text
    assert "an earlier training has that name" in problems(training(), training())
