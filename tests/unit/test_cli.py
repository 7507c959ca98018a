"""The command line: one sentence for every failure, a traceback only for those who ask, and the right status."""

from __future__ import annotations

import sys

import pytest

from isl_emu import cli
from isl_emu.errors import ScenarioError


def status_of(words: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["isl-emu", *words])
    monkeypatch.setattr(sys, "path", sys.path.copy())
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code


def failing(error: BaseException):
    def run(*_: object) -> int:
        raise error

    return run


def test_every_problem_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr("isl_emu.run.run", failing(ScenarioError("a: is 1, but 2", "b: is 3, but 4")))
    assert status_of(["run", "x.toml"], monkeypatch) == 1
    assert capsys.readouterr().err.splitlines() == ["Error: a: is 1, but 2", "Error: b: is 3, but 4"]


def test_an_unexpected_error_is_one_sentence_and_a_failure(monkeypatch, capsys):
    monkeypatch.setattr("isl_emu.run.run", failing(OSError(28, "No space left on device")))
    assert status_of(["run", "x.toml"], monkeypatch) == 1
    error = capsys.readouterr().err
    assert "No space left on device" in error
    assert len(error.splitlines()) == 1


def test_debug_shows_the_traceback(monkeypatch):
    monkeypatch.setenv(cli.DEBUG, "1")
    monkeypatch.setattr("isl_emu.run.run", failing(OSError("broken")))
    with pytest.raises(OSError, match="broken"):
        status_of(["--debug", "run", "x.toml"], monkeypatch)


def test_an_interrupt_has_its_own_status(monkeypatch):
    monkeypatch.setattr("isl_emu.run.run", failing(KeyboardInterrupt()))
    assert status_of(["run", "x.toml"], monkeypatch) == 130


def test_a_folder_that_was_not_prepared_is_not_executed(monkeypatch, capsys, tmp_path):
    assert status_of(["execute", str(tmp_path)], monkeypatch) == 1
    assert "prepared" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
