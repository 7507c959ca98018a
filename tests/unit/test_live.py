"""The live part writes down how it ended, whatever ended it."""

from __future__ import annotations

import json
import signal

import pytest
from rich.console import Console

from isl_emu import live
from isl_emu.errors import NetworkError
from isl_emu.progress import Steps
from isl_emu.results.folder import RunFolder


@pytest.fixture
def folder(tmp_path) -> RunFolder:
    folder = RunFolder.create(tmp_path, "any")
    folder.plan.touch()
    return folder


@pytest.mark.parametrize("error", [NetworkError("link: is gone"), OSError("disk full"), AssertionError("a bug")])
def test_any_error_is_recorded(folder, monkeypatch, error):
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(live, "missing_features", fail)
    with pytest.raises(type(error)):
        live.execute(folder, False, Steps(Console()))
    assert str(error) in json.loads(folder.execution.read_text())["error"]


def test_an_interrupt_is_recorded_and_undone_undisturbed(folder, monkeypatch):
    seen, before = [], signal.getsignal(signal.SIGINT)

    def interrupted(stage: object, _: bool, undo: object) -> None:
        undo.callback(lambda: seen.append(signal.getsignal(signal.SIGINT)))
        raise KeyboardInterrupt

    monkeypatch.setattr(live, "_stage", lambda *_: None)
    monkeypatch.setattr(live, "_live", interrupted)
    assert live.execute(folder, False, Steps(Console())) == 130
    assert seen == [signal.SIG_IGN]
    assert "interrupted" in json.loads(folder.execution.read_text())["error"]
    assert signal.getsignal(signal.SIGINT) is before


def test_a_traffic_process_that_fails_ends_the_run():
    live._check_status("client", None)
    live._check_status("client", 0)
    with pytest.raises(live.WorkloadError, match="client: it ended with status 1"):
        live._check_status("client", 1)
