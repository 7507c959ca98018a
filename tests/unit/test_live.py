"""The live part writes down how it ended, whatever ended it."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterable
from contextlib import ExitStack, nullcontext

import pytest
from rich.console import Console

from isl_emu.errors import MachineError, NetworkError, WorkloadError
from isl_emu.linkplan.plan import QueueKind
from isl_emu.live import execute as live
from isl_emu.parts.activity import RunProcess
from isl_emu.progress import Steps
from isl_emu.runs.clock import RunTimes
from isl_emu.runs.folder import RunFolder
from tests.plans import MS, SECOND, make_plan


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
    record = json.loads(folder.execution.read_text())
    assert str(error) in record["error"] and record["phases_s"]["teardown"] >= 0


def test_queues_that_the_kernel_cannot_manage_are_an_error_before_anything_is_built(monkeypatch):
    asked = []

    def missing(kinds: Iterable[QueueKind]) -> list[str]:
        asked.extend(kinds)
        return ["the kernel has no cake (sch_cake)"]

    monkeypatch.setattr(live, "missing_queues", missing)
    with pytest.raises(
        MachineError,
        match=r"aqm: the kernel has no cake \(sch_cake\), but the scenario asks for it; use --machine guest",
    ):
        live._check_queues(make_plan(2, [], [{(0, 1): MS}], aqm=QueueKind.CAKE))
    assert asked == [QueueKind.CAKE]


def test_an_interrupt_is_recorded_and_undone_undisturbed(folder, monkeypatch):
    seen, before = [], signal.getsignal(signal.SIGINT)

    def interrupted(folder: object, phase: object, undo: object, **_: object) -> None:
        undo.callback(lambda: seen.append(signal.getsignal(signal.SIGINT)))
        raise KeyboardInterrupt

    monkeypatch.setattr(live, "_build", interrupted)
    assert live.execute(folder, False, Steps(Console())) == 130
    assert seen == [signal.SIG_IGN]
    assert "interrupted" in json.loads(folder.execution.read_text())["error"]
    assert signal.getsignal(signal.SIGINT) is before


TIMES = RunTimes(0, SECOND)


@pytest.mark.parametrize("status", [0, 1])
def test_a_process_that_fails_ends_the_run(tmp_path, monkeypatch, status):
    (tmp_path / "ends_at_once.py").write_text(f"raise SystemExit({status})")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    activity = RunProcess("client", ["ends_at_once"], tmp_path)
    with ExitStack() as ending:
        activity.begin(TIMES, ending)
        with pytest.raises(WorkloadError, match="client: it ended with status 1") if status else nullcontext():
            activity.await_end(60.0)


def test_a_process_that_still_runs_has_not_failed_and_is_ended_with_the_run(tmp_path, monkeypatch):
    (tmp_path / "lasts.py").write_text("import time\ntime.sleep(600)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    activity = RunProcess("client", ["lasts"], tmp_path)
    with ExitStack() as ending:
        activity.begin(TIMES, ending)
        activity.check()
        activity.await_end(0.0)
    assert activity._process.returncode == -signal.SIGTERM
