"""Single keys of a scenario, set by their paths."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest
from click.testing import CliRunner

from isl_emu.cli import cli
from isl_emu.errors import ScenarioError
from isl_emu.scenario.parse import parse_scenario, with_changes
from isl_emu.scenario.settings import read_setting, read_value, write_value
from tests.scenarios import head, shell, table

SCENARIO = parse_scenario(
    head("set", duration="10 s")
    + shell(4, 1, 0, lasers={"topology": "ring", "rate": "10 Gbit/s"}, name="one")
    + shell(4, 1, 0, lasers={"topology": "ring", "rate": "10 Gbit/s"}, name="two")
    + table("[compute]", satellites=["one-p00s00"], server="modelled", board="jetson-agx-orin", model="qwen3-4b")
    + table("[compute]", satellites=["two-p00s00"], server="modelled", board="jetson-agx-orin", model="qwen3-4b"),
    "set.toml",
)


@pytest.mark.parametrize(
    ("text", "path", "values"),
    [
        ("questions.mean_interval=1s,2.5 s", "questions.mean_interval", ("1s", "2.5 s")),
        ("seed=1,2", "seed", (1, 2)),
        ("a.b = 0.5, true", "a.b", (0.5, True)),
        ("routing.policy=my.module:function", "routing.policy", ("my.module:function",)),
        ('questions.prompts=["a, b"],["c"]', "questions.prompts", (["a, b"], ["c"])),
        ("questions.users={x = 1, y = 2},{x = 3}", "questions.users", ({"x": 1, "y": 2}, {"x": 3})),
        ("compute[1].board='a,b'", "compute[1].board", ("a,b",)),
        ("uplink.file=,big.bin", "uplink.file", (None, "big.bin")),
        ("name=a=b", "name", ("a=b",)),
        ("time.start=2026-03-20T14:00:00Z", "time.start", (datetime(2026, 3, 20, 14, tzinfo=timezone.utc),)),
    ],
)
def test_a_setting_is_read(text: str, path: str, values: tuple[Any, ...]) -> None:
    assert read_setting(text) == (path, values)
    assert tuple(read_value(write_value(value)) for value in values) == values


@pytest.mark.parametrize("text", ["", "seed", "=1", "a..b=1", "a[x].b=1", "a[1]b=1", "a b=1"])
def test_what_is_no_setting_is_told(text: str) -> None:
    with pytest.raises(ScenarioError, match=r"--set: is .*, but a key of the scenario .*; write for example"):
        read_setting(text)


def _board(changes: dict[str, Any]) -> list[str | None]:
    return [group.board for group in with_changes(SCENARIO, **changes).compute]


def test_a_path_leads_to_one_table_or_to_all() -> None:
    assert _board({"compute[1].board": "raspberry-pi-5"}) == ["jetson-agx-orin", "raspberry-pi-5"]
    assert _board({"compute.board": "raspberry-pi-5"}) == ["raspberry-pi-5"] * 2
    rates = [one.lasers.rate_bit_s for one in with_changes(SCENARIO, **{"shell.lasers.rate": "2 Gbit/s"}).shell]
    assert rates == [2_000_000_000] * 2
    assert with_changes(SCENARIO, **{"shell[0].lasers.max_range": "9000 km"}).shell[1] == SCENARIO.shell[1]


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("compute[2].board", "there are only 2; count from 0"),
        ("time[0].step", "there is no list; count from 0"),
        ("uplink.file", r"the scenario has no \[uplink\]; add it there"),
        ("tme.step", "tme is not a known key, but only these are: .*time"),
        ("shell.name.x", "shell.name is no table; end the path there"),
        ("shell.lasers.color", "color"),
        ("time.duration", "duration"),
    ],
)
def test_a_path_that_leads_nowhere_is_told(path: str, told: str) -> None:
    with pytest.raises(ScenarioError, match=told):
        with_changes(SCENARIO, **{path: "no such value"})


def test_the_sky_of_a_saved_plan_is_fixed(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "set.toml").write_text(head("set", duration="4 s") + shell(4, 1, 0, lasers="ring"))
    words = [
        "plan",
        "set.toml",
        "--set",
        "shell.altitude=600 km",
        "--set",
        "time.duration=6s",
        "--out",
        "saved.parquet",
    ]
    assert CliRunner().invoke(cli, words).exit_code == 0
    for setting in ("shell.altitude=700 km", "time.duration=2s", "time.step=2s", "rate_scale=0.5"):
        done = CliRunner().invoke(cli, ["plan", "saved.parquet", "--set", setting, "--out", "x.parquet"])
        assert "is changed, but the sky of saved.parquet is fixed; change the scenario, and plan it again" in str(
            done.exception
        )
    assert CliRunner().invoke(cli, ["plan", "saved.parquet", "--set", "seed=4", "--out", "x.parquet"]).exit_code == 0
    done = CliRunner().invoke(cli, ["plan", "saved.parquet", "--set", "seed=4,5"])
    assert "seed has 2 values, but this is one run; see `isl-emu sweep`" in str(done.exception)
