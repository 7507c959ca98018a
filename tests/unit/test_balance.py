"""The power balance without a run: from Python, from the command line, and as a picture."""

from __future__ import annotations

import re
import shlex
import shutil
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import isl_emu
from isl_emu.cli import cli
from isl_emu.energy.sky import eclipse_ratio
from isl_emu.errors import ScenarioError
from isl_emu.scenario.parse import with_changes

ROOT = Path(__file__).parents[2]
SCENARIO = ROOT / "topologies" / "dawn-dusk-energy.toml"
PAGE = (ROOT / "docs" / "energy.md").read_text(encoding="utf-8")
THREE_ORBITS_S = 3 * 5711.0  # at 525 km


@pytest.fixture(scope="module")
def balance() -> isl_emu.PowerBalance:
    return isl_emu.power_balance(isl_emu.load(SCENARIO), duration_s=THREE_ORBITS_S)


def test_a_dawn_dusk_orbit_has_no_night_and_a_low_one_has(balance):
    rows = {row["satellite"]: row for row in balance.satellites.to_pylist()}
    assert rows["dawn-1"]["eclipse_ratio"] == 0.0
    assert rows["low-1"]["eclipse_ratio"] == pytest.approx(eclipse_ratio(525.0, np.radians(27)), abs=0.03)
    assert rows["dawn-1"]["off_ratio"] == 0.0 < rows["low-1"]["off_ratio"]
    assert rows["low-1"]["sustainable_ratio"] < rows["dawn-1"]["sustainable_ratio"]
    assert rows["low-1"]["pace_ratio"] < rows["dawn-1"]["pace_ratio"] <= 1.0


def test_parts_are_shells(balance):
    assert {label: len(numbers) for label, numbers in balance.parts.items()} == {
        "dawn": 3,
        "low": 3,
        "all with power": 6,
    }
    assert balance.series.charge_ratio.shape == (balance.grid.count, 6)


def test_less_demand_leaves_more_charge(balance):
    idle = isl_emu.power_balance(balance.scenario, duration_s=THREE_ORBITS_S, demand=0.0)
    assert (idle.series.charge_ratio >= balance.series.charge_ratio - 1e-6).all()
    assert idle.series.board_w.max() == pytest.approx(9.0)


def test_the_picture_shows_each_shell(balance, tmp_path):
    assert balance.draw(tmp_path / "new") == tmp_path / "new" / "energy.png"
    assert (tmp_path / "new" / "energy.png").stat().st_size > 20_000


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"demand": 1.5}, "demand: is 1.5"),
        ({"step_s": 0.0}, "step: is 0 s"),
        ({"duration_s": 10.0}, "step: is 60 s, but it must be more than 0 and at most the duration, 10 s"),
        ({"step_s": 0.001}, "86,400,000 steps of 6 satellites"),
    ],
)
def test_figures_that_cannot_be_are_refused(balance, changes, complaint):
    with pytest.raises(ScenarioError, match=re.escape(complaint)):
        isl_emu.power_balance(balance.scenario, **changes)


def test_a_scenario_without_power_is_refused():
    with pytest.raises(ScenarioError, match=r"iridium-star has none, .* add a \[\[power\]\] group"):
        isl_emu.power_balance(isl_emu.load(ROOT / "topologies" / "iridium-star.toml"))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder with nothing but the shipped scenarios."""
    shutil.copytree(ROOT / "topologies", tmp_path / "topologies")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)


def test_the_commands_of_the_page_work(folder):
    lines = [line for block in _blocks("sh") for line in block.splitlines()]
    assert lines
    for line in lines:
        result = CliRunner().invoke(cli, shlex.split(line)[1:], catch_exceptions=False)
        assert result.exit_code == 0, (line, result.output)
        for name in re.findall(r"--out (\S+)", line):
            assert (folder / name / "energy.png").exists(), line


def test_the_python_of_the_page_works(folder):
    blocks = _blocks("python")
    assert blocks
    for block in blocks:
        exec(compile(block, "docs/energy.md", "exec"), {})


@pytest.mark.parametrize(("day", "dawn_ratio", "train_ratio"), [("06-21", 0.0, 0.0), ("12-21", 0.173, 0.131)])
def test_the_shadow_of_dawn_dusk_orbits_over_the_year_is_what_the_page_says(day, dawn_ratio, train_ratio):
    scenario = isl_emu.load(ROOT / "topologies" / "three-body-2035.toml")
    there = with_changes(scenario, time={"start": datetime.fromisoformat(f"2026-{day}T04:00:00+00:00")})
    rows = isl_emu.power_balance(there, duration_s=86400, step_s=300).satellites.to_pylist()
    for shell, expected_ratio in (("dawn", dawn_ratio), ("train", train_ratio)):
        found = [row["eclipse_ratio"] for row in rows if row["satellite"].startswith(f"{shell}-")]
        assert len(found) in (400, 480)
        assert np.mean(found) == pytest.approx(expected_ratio, abs=0.005)
    for ratio in filter(None, (dawn_ratio, train_ratio)):
        assert f"{ratio:.0%}".replace("%", " %") in PAGE


def test_the_page_explains_every_column(balance):
    for name in balance.satellites.schema.names:
        assert f"`{name}`" in PAGE, name
