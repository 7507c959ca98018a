"""Plans of the shipped scenarios stay the same, byte for byte: SHA-256 of short ones, without the scenario's text.

`python tests/golden/test_plan_digests.py` writes plan_digests.toml anew, for a change that is meant to alter plans.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

import isl_emu

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HERE = Path(__file__).parent
TOPOLOGIES = HERE.parents[1] / "topologies"
GOLDEN = HERE / "plan_digests.toml"


def short_plan_digest(path: Path) -> str:
    """The digest of a scenario's plan of at most 60 instants, of fewer for many satellites.

    The text that a plan carries is left out, so that a new key of the format changes no digest.
    """
    scenario = isl_emu.load(path)
    satellites, time = len(scenario.satellite_names), scenario.time
    instants = 60 if satellites < 100 else 20 if satellites < 500 else 4
    plan = isl_emu.plan(scenario, duration_s=min(instants * time.step_ns, time.duration_ns) / 1e9)
    return replace(plan.link_plan, scenario_toml="").digest()


@pytest.mark.parametrize("path", sorted(TOPOLOGIES.glob("*.toml")), ids=lambda path: path.stem)
def test_a_shipped_scenario_gives_the_same_plan_as_ever(path: Path) -> None:
    assert short_plan_digest(path) == tomllib.loads(GOLDEN.read_text())[path.stem]


if __name__ == "__main__":
    lines = [f'{path.stem} = "{short_plan_digest(path)}"' for path in sorted(TOPOLOGIES.glob("*.toml"))]
    head = "# Digests of short plans, written by test_plan_digests.py with isl-emu 0.1.0, 2026-11-25."
    GOLDEN.write_text("\n".join([head, "", *lines]) + "\n")
