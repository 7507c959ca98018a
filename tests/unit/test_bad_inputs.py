"""What must be refused is, by one sentence that says where, what was found, what is allowed and what to do."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from isl_emu.errors import IslEmuError, MachineError, NetworkError, Problem, ScenarioError, WorkloadError
from isl_emu.files import read_json, read_whole
from isl_emu.limits import LIMITS, MIB, QUESTIONS
from isl_emu.scenario.parse import load_scenario, parse_scenario
from tests.bad_inputs import cases, provoke
from tests.scenarios import SMALL, shipped

ROOT = Path(__file__).parents[2]
CASES = cases()
CLASSES = {"IslEmuError", "ScenarioError", "MachineError", "NetworkError", "WorkloadError"}
# what a message may hand on: it is whole already, or is checked where it is made
WHOLE = {"excess", "problem"}


def _label(case: dict[str, object]) -> str:
    return f"{case['kind']}-{str(case.get('new', case.get('to', case.get('as', case.get('keys', '')))))[:24]!r}"


@pytest.mark.parametrize("case", CASES, ids=_label)
def test_a_bad_input_is_refused_with_place_finding_rule_and_remedy(case, tmp_path):
    error = provoke(case, tmp_path)
    assert len(error.parts) == len(error.problems), error.problems
    for part, said in zip(error.parts[0], case["says"], strict=True):
        assert said in part


def test_there_are_many_and_no_two_alike():
    given = {json.dumps({**case, "says": None}, sort_keys=True) for case in CASES}
    assert len(given) == len(CASES) >= 200


@pytest.mark.parametrize("kind", [ScenarioError, MachineError, NetworkError, WorkloadError, IslEmuError])
def test_no_error_is_without_a_remedy(kind):
    (told,) = kind("here: it is 3, but 2 is the most").parts
    assert told == Problem("here", "it is 3", "2 is the most", kind.remedy)
    (own,) = kind("here: it is 3, but 2 is the most; lower it").parts
    assert own.remedy == "lower it"


def _messages() -> Iterator[tuple[str, str]]:
    """The text of each error of ours that is raised with one, with {name} where something is put in."""
    for path in sorted((ROOT / "isl_emu").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                for argument in node.exc.args if getattr(node.exc.func, "id", "") in CLASSES else ():
                    if isinstance(argument, (ast.Constant, ast.JoinedStr)):
                        yield f"{path.relative_to(ROOT)}:{node.lineno}", _text(argument)


def _text(node: ast.expr) -> str:
    if isinstance(node, ast.JoinedStr):
        return "".join(map(_text, node.values))
    if isinstance(node, ast.FormattedValue):
        allowed = " but ; " if "_allowed_keys" in ast.dump(node.value) else "{}"
        return f"{{{node.value.id}}}" if isinstance(node.value, ast.Name) else allowed
    return str(node.value) if isinstance(node, ast.Constant) else ""


@pytest.mark.parametrize(("place", "text"), [pytest.param(*one, id=one[0]) for one in _messages()])
def test_each_error_that_is_raised_says_what_is_allowed_and_what_to_do(place, text):
    if not any(f"{{{name}}}" in text for name in WHOLE):
        assert " but " in text
        assert "; " in text


def test_limits_can_be_raised(monkeypatch):
    text = shipped("three-body", {'mean_interval = "9 s"': 'mean_interval = "50 us"'})
    with pytest.raises(ScenarioError, match="about 1,900,000 questions"):
        parse_scenario(text, "text")
    monkeypatch.setenv(QUESTIONS.variable, "2000000")
    assert parse_scenario(text, "text").questions


@pytest.mark.parametrize("value", ["0", "-1", "many", "1.5", "9" * 30, "٣"])
def test_a_limit_that_is_no_number_is_told_of(value, monkeypatch):
    monkeypatch.setenv(MIB.variable, value)
    with pytest.raises(ScenarioError, match=f"{MIB.variable}: is .* but it is a whole number"):
        load_scenario(ROOT / "topologies" / "three-body.toml")


def test_every_limit_is_in_the_docs():
    page = (ROOT / "docs" / "robustness.md").read_text()
    for limit in LIMITS:
        assert f"| `{limit.variable}` | {limit.usual:,} |" in page


def test_many_unknown_keys_are_told_of_in_few_words():
    """Half a megabyte of them; ten times as many take ten times as long."""
    with pytest.raises(ScenarioError) as caught:
        parse_scenario("".join(f"k{n} = 1\n" for n in range(50_000)) + SMALL, "text")
    assert len(str(caught.value)) < 1_000
    assert "has 50,000 unknown keys, such as k0, k1, k2, but none are allowed" in str(caught.value)


def test_of_many_problems_the_first_are_told():
    stations = "".join(f'[[station]]\nname = "gs{n}"\nuplink = 3\n' for n in range(100))
    with pytest.raises(ScenarioError) as caught:
        parse_scenario(SMALL + stations, "text")
    assert len(caught.value.problems) == 21
    assert "problems more" in caught.value.problems[-1]


def test_a_file_that_grows_is_read_up_to_the_limit(tmp_path, monkeypatch):
    monkeypatch.setenv(MIB.variable, "1")
    (tmp_path / "large").write_bytes(bytes(1 << 20))
    assert len(read_whole(tmp_path / "large")) == 1 << 20
    (tmp_path / "large").write_bytes(bytes((1 << 20) + 1))
    with pytest.raises(OSError, match="the most is 1, unless ISL_EMU_MOST_MIB says more"):
        read_whole(tmp_path / "large")


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "[" * 100_000])
def test_a_record_that_is_none_is_not_taken_for_one(text, tmp_path):
    (tmp_path / "record.json").write_text(text)
    assert read_json(tmp_path / "record.json") is None
