"""What goes wrong in a user's function is told as the user's: by the key, the function and the line."""

from __future__ import annotations

from pathlib import Path

import pytest

from isl_emu import timebase
from isl_emu.errors import ScenarioError, WorkloadError
from isl_emu.scenario.user_functions import user_function
from isl_emu.timebase import EXACT_TIME

MODULE = """
import sys
import time

def good(a, b=2):
    return a + b

def broken(a):
    return helper(a)

def helper(a):
    return {}[a]

def leaves(a):
    sys.exit(a)

def endless(a):
    while True:
        a += 1

def sleeps(a):
    time.sleep(a)

def ours(a):
    from isl_emu.errors import WorkloadError
    raise WorkloadError("column: is wrong")

class Policy:
    def __call__(self, a):
        return a

policy, number = Policy(), 7
"""


@pytest.fixture
def called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "users_own.py").write_text(MODULE)
    (tmp_path / "wrong_syntax.py").write_text("def f(:\n")
    (tmp_path / "leaves_at_import.py").write_text("x = 1\nraise SystemExit(0)\n")
    (tmp_path / "fails_at_import.py").write_text("x = 1\ny = x / 0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(timebase, "LIMIT_S", 0.2)
    monkeypatch.setattr(timebase, "LIMIT_LINES", 10_000)

    def call(name: str, *arguments: object) -> object:
        return user_function(name, "questions.target", 1)(*arguments)

    return call


def test_a_good_one_is_called(called) -> None:
    assert called("users_own:good", 1) == 3
    assert called("users_own:policy", 5) == 5


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("users_own:broken", r"broken failed in line 12 of .*users_own.py: KeyError \(3\), but .*; mend the function"),
        ("users_own:leaves", r"users_own:leaves called exit\(3\) in line 15 of .*users_own.py"),
        ("users_own:endless", r"users_own:endless did not return in line 1[89] of .*users_own.py within"),
        ("users_own:sleeps", r"users_own:sleeps did not return in line 22 of"),
        ("users_own:number", "is 'users_own:number', but that is a int"),
        ("users_own:missing", "cannot be imported"),
        ("wrong_syntax:f", "importing it failed in line 1 of .*wrong_syntax.py: SyntaxError"),
        ("leaves_at_import:f", r"importing it called exit\(0\) in line 2 of .*leaves_at_import.py"),
        ("fails_at_import:f", "importing it failed in line 2 of .*fails_at_import.py: ZeroDivisionError"),
    ],
)  # fmt: skip
def test_a_bad_one_is_told_with_key_function_and_line(called, name: str, told: str) -> None:
    with pytest.raises(ScenarioError, match=f"^questions.target: .*{told}"):
        called(name, 3)


def test_where_no_time_passes_lines_are_counted(called, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(EXACT_TIME, "here")
    assert called("users_own:good", 1) == 3
    with pytest.raises(ScenarioError, match="users_own:endless did not return"):
        called("users_own:endless", 3)


def test_the_number_of_arguments_is_checked_before_anything_is_called(called) -> None:
    assert user_function("users_own:good", "routing.policy", 2)(1, 1) == 2
    with pytest.raises(
        ScenarioError, match=r"takes \(a, b=2\), but it is called with 4 arguments; let it take as many"
    ):
        user_function("users_own:good", "routing.policy", 4)


def test_an_error_of_ours_keeps_its_words(called) -> None:
    with pytest.raises(WorkloadError, match="column: is wrong"):
        called("users_own:ours", 3)
