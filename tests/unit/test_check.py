"""What `isl-emu check` finds without planning or building: files, functions, programs, names, and impossible links."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from click.testing import CliRunner

from isl_emu.api import scenario_warnings
from isl_emu.cli import cli
from isl_emu.errors import IslEmuError, ScenarioError, WorkloadError
from isl_emu.experiment import check_scenario
from isl_emu.scenario.parse import parse_scenario
from tests.scenarios import head, shell, station, table

BASE = head("checked") + shell(12, lasers="ring") + station(site="chengdu")
ASKED = table("questions", mean_interval="1 s")
MODELLED = table("compute", server="modelled", board="jetson-agx-orin", model="llama-3-1-8b")


def check(text: str, *options: str, at: Path) -> tuple[int, str]:
    """The exit status of the command, and what it says on an error or prints."""
    (at / "checked.toml").write_text(text)
    done = CliRunner().invoke(cli, ["check", *options, str(at / "checked.toml")])
    return done.exit_code, f"{done.output}\n{done.exception or ''}"


def test_everything_that_cannot_be_used_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cut.gguf").write_bytes(b"GGUF\x03\x00\x00\x00")
    (tmp_path / "prompts.jsonl").write_text('{"question": "why?"}\n')
    (tmp_path / "jobs_of_mine.py").write_text("def main(): pass\ndef policy(a, b, c): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    text = BASE + table("compute", model=str(tmp_path / "cut.gguf"))
    text += table("questions", mean_interval="1 s", prompt_file="prompts.jsonl", target="no_such_module:policy")
    text += table("routing", policy="jobs_of_mine:policy")
    text += table("[workload]", name="jobs", nodes=["p00s02"], function="jobs_of_mine:main")
    text += table("[program]", name="traffic", node="p00s01", command=["no-such-program", "-s"])
    status, said = check(text, at=tmp_path)
    assert status == 1
    for problem in (
        "routing.policy: is 'jobs_of_mine:policy', which takes (a, b, c), but it is called with 4 arguments",
        "questions.target: is 'no_such_module:policy', but that cannot be imported",
        f"questions.prompt_file: {tmp_path / 'prompts.jsonl'} line 1 is",
        f"compute.model: {tmp_path / 'cut.gguf'} has a broken GGUF header",
        "workload jobs: function: is 'jobs_of_mine:main', which takes (), but it is called with 1 argument",
        "program traffic: command is 'no-such-program', but there is no such program",
    ):
        assert problem in said
    assert "# program.traffic: runs no-such-program -s" in said, "what it runs is listed all the same"


def test_a_trace_is_read_and_no_request_left_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("Timestamp,Model,Request tokens,Response tokens\n0,m,10,0\n5,m,10,0\n")
    text = BASE + MODELLED + table("questions", arrivals="trace") + table("questions.trace", file="t.csv")
    status, said = check(text, at=tmp_path)
    assert status == 0
    assert "Warning: questions: none is asked in this run" in said
    (tmp_path / "t.csv").write_text("Timestamp,Model,Request tokens,Response tokens\n0,m,10,ten\n")
    status, said = check(text, at=tmp_path)
    assert status == 1
    assert "t.csv line 2 is broken" in said


def test_a_split_model_and_own_servers_are_looked_at(tmp_path: Path) -> None:
    text = BASE + table("[split]", satellites=["p00s00", "p00s01"], model=str(tmp_path / "none.gguf"))
    text += table("[compute]", satellites=["p00s02"], server="external", command="no-such-server {port}")
    _, said = check(text, at=tmp_path)
    assert f"split.model: {tmp_path / 'none.gguf'} cannot be read" in said
    assert "compute.command: 'no-such-server' cannot be run" in said


def test_exact_time_that_a_scenario_cannot_have_is_told() -> None:
    text = head("checked", slowdown=2.0) + 'clock = "exact"\n' + shell(12)
    with pytest.raises(ScenarioError, match=r'time.clock: is "exact", but slow motion is for real time'):
        check_scenario(parse_scenario(text, "checked"))


def test_problems_of_one_class_keep_it_and_of_several_are_the_scenarios() -> None:
    model = BASE + table("compute", model="/no/such.gguf")
    with pytest.raises(WorkloadError):
        check_scenario(parse_scenario(model, "checked"))
    with pytest.raises(ScenarioError, match=r"(?s)routing.policy.*such.gguf") as both:
        check_scenario(parse_scenario(model + table("routing", policy="no_such_module:f"), "checked"))
    assert len(both.value.problems) == 2


@pytest.mark.parametrize("named", ["./runs-later", "sh", None], ids=["made-by-another", "there", "may-fail"])
def test_programs_that_are_there_or_may_come_are_no_problem(named: str | None) -> None:
    command = {"command": [named or "no-such-program"]} | ({} if named else {"may_fail": True})
    check_scenario(parse_scenario(BASE + table("[program]", name="one", node="p00s01", **command), "checked"))


def test_a_program_by_its_whole_path_must_be_one(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("#!/bin/sh\n")
    scenario = parse_scenario(BASE + table("[program]", name="one", node="gs", command=[str(own)]), "checked")
    with pytest.raises(WorkloadError, match="there is no such program"):
        check_scenario(scenario)
    own.chmod(own.stat().st_mode | stat.S_IXUSR)
    check_scenario(scenario)


def test_nothing_of_a_stranger_is_imported_if_he_is_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "strangers_policy.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    text = BASE + table("routing", policy="strangers_policy:detour")
    status, said = check(text, "--no-programs", at=tmp_path)
    assert (status, (tmp_path / "imported").exists()) == (0, False)
    assert "# routing.policy: imports strangers_policy:detour" in said
    assert check(text, at=tmp_path)[0] == 1
    assert not (tmp_path / "imported").exists()  # behind a wall
    assert check(text, "--trust", at=tmp_path)[0] == 1
    assert (tmp_path / "imported").exists()


POWER = table(
    "[power]",
    satellites=[],
    bus="100 W",
    panel={"area": "2 m2", "efficiency": 0.3},
    battery={"capacity": "1 kWh"},
    radiator={"area": "1 m2", "emissivity": 0.8, "heat_capacity": "5 kJ/K"},
)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (MODELLED + "satellites = []\n", "compute[0].satellites is empty"),
        (MODELLED + 'satellites = ["a"]\n', "compute.satellites names 'a', but there is no such satellite"),
        (MODELLED + 'satellites = ["!p00s00"]\n', "'!p00s00', but these leave no satellite"),
        (MODELLED + 'satellites = ["p00s00", "!p*"]\n', "but these leave no satellite"),
        (MODELLED + table("questions", mean_interval="1 s", stations=[]), "questions.stations is empty"),
        (table("compute") + table("uplink", stations=[]), "uplink.stations is empty"),
        (table("compute") + table("uplink", satellites=[]), "uplink.satellites is empty"),
        (POWER, "power[0].satellites is empty"),
        (
            table("compute") + table("[kv_handover]", source="a", target="p00s01", tokens=[64]),
            "kv_handover[0] names 'a', but there is no such satellite",
        ),
    ],
)
def test_names_that_mean_nothing_are_refused(text: str, problem: str) -> None:
    with pytest.raises(IslEmuError) as refused:
        parse_scenario(BASE + text, "checked")
    assert problem in str(refused.value)


def test_what_is_taken_out_of_an_ordered_list_is_out() -> None:
    text = BASE + table("[split]", satellites=["p00s03", "p00s0*", "!p00s00", "!p00s0[4-9]"])
    scenario = parse_scenario(text, "checked")
    assert scenario.split[0].members(scenario.satellite_names) == ("p00s03", "p00s01", "p00s02")


@pytest.mark.parametrize(
    ("total", "planes", "lasers", "expected"),
    [
        (3, 1, "ring", ["of the links within a plane none is ever possible"]),
        (24, 12, "+grid", ["of the links within a plane none is ever possible"]),
        (6, 6, "+grid", ["of the links within a plane there are none"]),
        (6, 3, "+grid", ["within a plane none is ever", "between planes none is ever"]),
        (12, 1, {"topology": "ring", "max_range": "3000 km"}, ["their ends are at least 3,5"]),
        (12, 1, {"topology": "pairs", "pairs": [["p00s00", "p00s01"], ["p00s00", "p00s06"]]}, ["pairs[1] (p00s00 - "]),
        (72, 6, "+grid", []),
        (12, 1, "ring", []),
        (12, 1, "nearest", []),
    ],
)
def test_links_that_can_never_be_are_told(total: int, planes: int, lasers, expected: list[str]) -> None:
    lasers = lasers if isinstance(lasers, dict) else {"topology": lasers}
    text = head("checked") + shell(total, planes, inclination="53 deg", lasers=lasers)
    text += table("[shell.lasers.terminal]", mounts=["free"]) if lasers["topology"] == "nearest" else ""
    warnings = scenario_warnings(parse_scenario(text, "checked"))
    assert len(warnings) == len(expected)
    for warning, part in zip(warnings, expected, strict=True):
        assert part in warning


def test_a_link_that_is_possible_for_a_part_of_a_revolution_is_none_of_these() -> None:
    """Two planes at right angles meet over the poles alone."""
    lasers = {"topology": "+grid", "max_range": "2000 km"}
    text = head("checked") + shell(48, 2, pattern="star", lasers=lasers, inclination="90 deg")
    assert scenario_warnings(parse_scenario(text, "checked")) == ()
