"""The command line: one sentence for every failure, a traceback only for those who ask, and the right status."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from isl_emu import cli
from isl_emu.errors import ScenarioError
from isl_emu.files import read_stream
from isl_emu.limits import MIB
from tests.parsers import TLE
from tests.scenarios import head

THREE_BODY = str(Path(__file__).parents[2] / "topologies" / "three-body.toml")


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
    monkeypatch.setattr("isl_emu.experiment.run_file", failing(ScenarioError("a: is 1, but 2; 3", "b: is 3, but 4; 5")))
    assert status_of(["run", "x.toml"], monkeypatch) == 1
    assert capsys.readouterr().err.splitlines() == ["Error: a: is 1, but 2; 3", "Error: b: is 3, but 4; 5"]


def test_an_unexpected_error_is_one_sentence_and_a_failure(monkeypatch, capsys):
    monkeypatch.setattr("isl_emu.experiment.run_file", failing(OSError(28, "No space left on device")))
    assert status_of(["run", "x.toml"], monkeypatch) == 1
    error = capsys.readouterr().err
    assert "No space left on device" in error
    assert len(error.splitlines()) == 1


def test_debug_shows_the_traceback(monkeypatch):
    monkeypatch.setenv(cli.DEBUG, "1")
    monkeypatch.setattr("isl_emu.experiment.run_file", failing(OSError("broken")))
    with pytest.raises(OSError, match="broken"):
        status_of(["--debug", "run", "x.toml"], monkeypatch)


def test_an_interrupt_has_its_own_status(monkeypatch):
    monkeypatch.setattr("isl_emu.experiment.run_file", failing(KeyboardInterrupt()))
    assert status_of(["run", "x.toml"], monkeypatch) == 130


def test_an_output_that_nobody_reads_has_its_own_status():
    """As by `isl-emu sites | true`; in a guest it is how the launcher learns that nothing could be said."""
    reads, writes = os.pipe()
    os.close(reads)
    command = [sys.executable, "-m", "isl_emu", "sites"]
    done = subprocess.run(command, stdout=writes, stderr=subprocess.PIPE, check=False)
    os.close(writes)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")


@pytest.mark.parametrize("name", ["-", "/dev/fd/{}", "/proc/self/fd/{}", "fifo"])
def test_a_scenario_may_be_written_into_a_pipe(name, tmp_path, monkeypatch, capsys):
    """Its own files are found from the current folder."""
    sky = '[[shell]]\nname = "ring"\ntle = "elements"\n[shell.lasers]\ntopology = "none"\n'
    text = head("small", start="2019-12-09T17:00:00Z") + sky
    (tmp_path / "elements").write_text(TLE)
    monkeypatch.chdir(tmp_path)
    os.mkfifo("fifo")
    reads, writes = os.pipe()
    monkeypatch.setattr(cli, "STDIN", reads)

    def write() -> None:
        with open("fifo" if name == "fifo" else writes, "w") as file:
            file.write(text)

    writer = threading.Thread(target=write)
    writer.start()
    assert status_of(["check", name.format(reads)], monkeypatch) == 0
    writer.join()
    assert "1 25544U" in capsys.readouterr().out
    os.close(reads)


def test_a_pipe_is_waited_for_and_read_within_bounds(tmp_path, monkeypatch):
    reads, writes = os.pipe()
    with pytest.raises(OSError, match=r"nobody has written its end in 0.01 s"):
        read_stream(reads, 0.01)
    monkeypatch.setenv(MIB.variable, "1")
    writer = threading.Thread(target=lambda: os.write(writes, bytes(2 << 20)))
    writer.start()
    with pytest.raises(OSError, match=f"more than 1 MiB and the most is 1, unless {MIB.variable} says more"):
        read_stream(reads)
    os.close(reads)
    writer.join()
    with open("/dev/zero") as device, pytest.raises(OSError, match="it is a device and no file"):
        read_stream(device.fileno())


def test_a_folder_that_was_not_prepared_is_not_executed(monkeypatch, capsys, tmp_path):
    assert status_of(["execute", str(tmp_path)], monkeypatch) == 1
    assert "prepared" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_path_is_printed_hop_by_hop(monkeypatch, capsys):
    assert status_of(["path", THREE_BODY, "p00s00", "p00s03", "--at", "30s"], monkeypatch) == 0
    *hops, total = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in hops] == ["p00s01", "p00s02", "p00s03"]
    assert sum(float(line.split()[0]) for line in hops) == pytest.approx(float(total.split()[0]))
    assert "3 hops" in total


@pytest.mark.parametrize(
    ("words", "complaint"),
    [(["p00s00", "p00s30"], "no such node"), (["p00s00", "p00s01", "--at", "9min"], "the plan ends at 120 s")],
)
def test_a_path_that_cannot_be_asked_for_is_refused(words, complaint, monkeypatch, capsys):
    assert status_of(["path", THREE_BODY, *words], monkeypatch) == 1
    assert complaint in capsys.readouterr().err


def test_sites_are_listed_and_searched(monkeypatch, capsys):
    assert status_of(["sites", "chengdu"], monkeypatch) == 0
    listed = capsys.readouterr().out
    assert "chengdu" in listed
    assert "30.6667" in listed
    assert "tokyo" not in listed
