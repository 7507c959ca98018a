from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from isl_emu.errors import MachineError, NetworkError
from isl_emu.live import control
from isl_emu.live.control import ControlDesk, announce, ask, find_live_run
from isl_emu.runs import directory as rundir
from isl_emu.runs.directory import RunDirectory, create_run_directory


@pytest.fixture
def run(tmp_path, monkeypatch) -> RunDirectory:
    monkeypatch.setattr(rundir, "runs_root", lambda: tmp_path / "runs")
    return create_run_directory()


@pytest.fixture
def folder(run, tmp_path) -> Path:
    path = tmp_path / "out"
    (path / "journal").mkdir(parents=True)
    announce(run, path)
    return path


def _greet(request, output, cancelled) -> int:
    output.write(f"hello {request['name']}\n".encode())
    return 7


def _fail(request, output, cancelled) -> int:
    raise NetworkError("net: it is not there")


def _wait_for_cancel(request, output, cancelled) -> int:
    output.write(b"waiting\n")
    while not cancelled():
        threading.Event().wait(0.01)
    request["seen"].set() if "seen" in request else None
    return 130


HANDLERS = {"greet": _greet, "fail": _fail, "wait": _wait_for_cancel}


def test_an_answer_comes_with_its_output_and_status(run, folder):
    said = []
    with ControlDesk(folder / "journal", HANDLERS):
        assert ask(run, folder, {"verb": "greet", "name": "world"}, said.append) == 7
    assert b"".join(said) == b"hello world\n"


def test_an_error_is_said_and_not_raised_in_the_run(run, folder):
    said = []
    with ControlDesk(folder / "journal", HANDLERS):
        assert ask(run, folder, {"verb": "fail"}, said.append) == 1
        assert ask(run, folder, {"verb": "greet", "name": "again"}, said.append) == 7
    assert b"".join(said) == b"Error: net: it is not there\nhello again\n"


def test_who_stops_waiting_cancels(run, folder):
    finished = threading.Event()

    def wait(request, output, cancelled):
        status = _wait_for_cancel({}, output, cancelled)
        finished.set()
        return status

    def stop_at_first_word(said: bytes) -> None:
        if said:
            raise KeyboardInterrupt

    with ControlDesk(folder / "journal", {"wait": wait}):
        with pytest.raises(KeyboardInterrupt):
            ask(run, folder, {"verb": "wait"}, stop_at_first_word)
        assert finished.wait(10)


def test_a_run_that_ends_does_not_leave_one_waiting(run, folder):
    (folder / "journal" / control.FOLDER).mkdir()
    (run.path / "owner.json").unlink()
    with pytest.raises(MachineError, match="ended before it answered"):
        ask(run, folder, {"verb": "greet"}, lambda _: None)


def test_a_run_without_a_net_yet_says_so(run, folder):
    with pytest.raises(MachineError, match="does not answer yet"):
        ask(run, folder, {"verb": "greet"}, lambda _: None)


def test_the_only_live_run_is_found(run, folder):
    assert find_live_run(None) == (run, folder)
    assert find_live_run(folder) == (run, folder)


def test_without_a_live_run_there_is_an_error(run, folder):
    (run.path / "owner.json").write_text(f'{{"pid": {os.getpid()}, "start_ticks": 1}}')
    with pytest.raises(MachineError, match="there is none"):
        find_live_run(None)


def test_of_several_live_runs_one_must_be_named(run, folder, tmp_path):
    other = tmp_path / "other"
    announce(create_run_directory(), other)
    with pytest.raises(MachineError, match="there are 2"):
        find_live_run(None)
    assert find_live_run(other)[1] == other
