"""Which parts of a run need real time, and why: in exact time computing takes none."""

from __future__ import annotations

import pytest

from isl_emu.parts.registry import PARTS
from isl_emu.scenario.parse import parse_scenario
from tests.scenarios import quiet_ring, table

PROGRAM = {"name": "one", "node": "p00s00", "command": ["true"]}
MODELLED = table(
    "compute", satellites=["p00s01"], server="modelled", board="inference-2035", model="qwen3-8b", context_tokens=4096
)


def _reasons(text: str) -> list[str]:
    scenario = parse_scenario(quiet_ring() + text, "the test")
    return [reason for part in PARTS for reason in part.real_time(scenario)]


@pytest.mark.parametrize("text", ["", MODELLED, table("[program]", **PROGRAM)])
def test_what_takes_no_time_of_the_machine_is_exact(text):
    assert _reasons(text) == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (table("compute", satellites=["p00s01"]), 'compute.server is "real"'),
        (table("[program]", **PROGRAM, cpus=0.5), "one is given a share of a core"),
    ],
)
def test_what_computes_needs_real_time(text, reason):
    (found,) = _reasons(text)
    assert reason in found
