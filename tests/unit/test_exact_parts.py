"""Which parts of a run need real time, and why: in exact time computing takes none."""

from __future__ import annotations

import pytest

from isl_emu.parts.registry import PARTS
from isl_emu.scenario.parse import load_scenario, parse_scenario
from tests.scenarios import TOPOLOGIES, quiet_ring, table

PROGRAM = {"name": "one", "node": "p00s00", "command": ["true"]}
MODELLED = table(
    "compute", satellites=["p00s01"], server="modelled", board="inference-2035", model="qwen3-8b", context_tokens=4096
)

MOVED = table("[kv_handover]", source="p00s01", target="p00s02", tokens=[100])
ON_A_BOARD = table("compute", satellites=["p00s01", "p00s02"], board="three-body")
POWER = table("[power]", board="raspberry-pi-5", bus="10 W", panel={"area": "1 m2"}, battery={"capacity": "9 Wh"},
              radiator={"area": "1 m2", "heat_capacity": "20 kJ/K"})  # fmt: skip
STATED = table("[program]", **PROGRAM, cpus=0.5, cpu_time="stated") + POWER
SPLIT = table("[split]", satellites=["p00s01", "p00s02"])
TRAINED = table("[training]") + table("training.real", compute_time="1 s")


def _reasons(text: str) -> list[str]:
    scenario = parse_scenario(quiet_ring() + text, "the test")
    return [reason for part in PARTS for reason in part.real_time(scenario)]


@pytest.mark.parametrize(
    "text",
    [
        "",
        MODELLED,
        table("[program]", **PROGRAM),
        ON_A_BOARD + MOVED,
        STATED,
        SPLIT + 'board = "three-body"\n',
        TRAINED,
    ],
)
def test_what_takes_no_time_of_the_machine_is_exact(text):
    assert _reasons(text) == []


@pytest.mark.parametrize("path", sorted(TOPOLOGIES.glob("*.toml")), ids=lambda path: path.stem)
def test_shipped_scenarios_are_exact(path):
    scenario = load_scenario(path)
    assert [reason for part in PARTS for reason in part.real_time(scenario)] == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (table("compute", satellites=["p00s01"]), 'compute.server is "real"'),
        (ON_A_BOARD + 'pace_model = "qwen3-8b"\n' + MOVED, "whose cache has another size"),
        (table("[program]", **PROGRAM, cpus=0.5), "one is given a share of a core"),
        (table("[program]", **PROGRAM) + POWER, "power counts what one computes"),
        (table("[training]") + "[training.real]\n", "add compute_time, or board"),
        (SPLIT, "add board, and pace_model"),
        (SPLIT + 'engine = "llama-rpc"\nboard = "three-body"\n', 'use "pipeline"'),
    ],
)
def test_what_computes_needs_real_time(text, reason):
    found, *_ = _reasons(text)
    assert reason in found
