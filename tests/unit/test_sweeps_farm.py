"""A sweep on the workers of a Dask cluster, whose runs are quick: what is kept, repeated, told and left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from isl_emu.cluster.connect import connect, versions
from isl_emu.errors import MachineError
from isl_emu.progress import Steps
from isl_emu.scenario.parse import parse_scenario
from isl_emu.sweeps import farm
from isl_emu.sweeps import sweep as sweeping
from isl_emu.sweeps.sweep import Sweep, begin_sweep, run_sweep
from isl_emu.sweeps.worker import Job, Seat, is_shared, pack, unpack
from tests.quick_run import BEGUN, FAIL, HOLD
from tests.runs import ROOT
from tests.scenarios import head, shell

distributed = pytest.importorskip("distributed")
SCENARIO = parse_scenario(head("swept", duration="10 s") + shell(4, 1, 0, lasers="ring"), "swept.toml")
QUIET = Steps(Console(quiet=True))
PATIENCE_S = 60.0


@pytest.fixture
def begun(tmp_path: Path) -> Sweep:
    return begin_sweep(SCENARIO, {"seed": [1, 2, 3]}, tmp_path / "sweep", [])


@pytest.fixture(autouse=True)
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs are quick, and say in a file that they have begun."""
    from tests.quick_runs import QuickRuns  # noqa: PLC0415  Dask may be absent

    def connected(text: str, note: Any = print) -> Any:
        client = connect(text, note)
        client.register_plugin(QuickRuns())
        return client

    monkeypatch.setattr(sweeping, "connect", connected)
    monkeypatch.setenv(BEGUN, str(tmp_path / "begun"))
    monkeypatch.setenv(HOLD, str(tmp_path / "hold"))


def begun_runs(tmp_path: Path) -> list[tuple[int, str]]:
    """The process and the folder of each run that has begun."""
    lines = (tmp_path / "begun").read_text().splitlines() if (tmp_path / "begun").exists() else []
    return [(int(pid), folder) for pid, folder in (line.split(" ", 1) for line in lines)]


def await_that(met: Callable[[], bool]) -> None:
    until_s = time.monotonic() + PATIENCE_S
    while not met() and time.monotonic() < until_s:
        time.sleep(0.05)
    assert met()


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if "files/gs/link" not in str(path)}


def is_alive(pid: int) -> bool:
    with suppress(OSError):
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    return False


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.mark.parametrize("apart", [False, True])
def test_the_same_is_in_the_same_places_whether_files_are_shared_or_not(
    apart: bool, begun: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if apart:
        monkeypatch.setenv("QUICK_RUNS_APART", "1")
    monkeypatch.setenv(FAIL, "0001")
    outcome = run_sweep(begun, QUIET, cluster="local:2")
    assert list(outcome.failed) == ["0001_seed=2"]
    assert outcome.failed["0001_seed=2"].startswith("it is not to be (on the worker tcp://127.0.0.1:")
    room = str(begun.path / "under-way")
    assert all(folder.startswith(room) != apart for _, folder in begun_runs(tmp_path))
    runs = {f"runs/000{n}_seed={n + 1}" for n in range(3)}
    results = {
        f"runs/{name}{path}"
        for name in ("0000_seed=1", "0002_seed=3")
        for path in ("/scenario.toml", "/serving.json", "/fidelity.json", "/provenance.json", "/files", "/files/gs")
    }
    beside = {f"{run}.{kind}" for run in runs for kind in ("toml", "log")}
    own = {"runs", "scenario.toml", "sweep.json", "sweep.parquet", "repeats.parquet"}
    assert files_below(begun.path) == own | beside | results | (runs - {"runs/0001_seed=2"})
    assert (begun.path / "runs" / "0000_seed=1.log").read_text() == "done\n"
    assert (begun.folder(begun.cells[0]).stat().st_mode & 0o777) == 0o700
    kept = {cell.name: begun.folder(cell).stat() for cell, _ in begun.finished}

    if apart:
        return
    monkeypatch.delenv(FAIL)
    again = run_sweep(begun, QUIET, cluster="local:1")
    assert (again.kept, again.failed, len(begun.finished)) == (2, {}, 3)
    assert len(begun_runs(tmp_path)) == 4
    assert all(begun.folder(cell).stat() == kept[cell.name] for cell, _ in begun.finished if cell.name in kept)


def test_a_run_whose_worker_dies_is_made_by_another(begun: Sweep, tmp_path: Path) -> None:
    (tmp_path / "hold").touch()

    def kill_one() -> None:
        await_that(lambda: len(begun_runs(tmp_path)) == 2)
        os.kill(parent(begun_runs(tmp_path)[0][0]), signal.SIGKILL)
        await_that(lambda: len(begun_runs(tmp_path)) == 3)
        (tmp_path / "hold").unlink()

    killer = threading.Thread(target=kill_one)
    killer.start()
    outcome = run_sweep(begun, QUIET, cluster="local:2")
    killer.join()
    assert (outcome.failed, len(begun.finished)) == ({}, 3)
    assert len(begun_runs(tmp_path)) == 4
    assert not (begun.path / "under-way").exists()


def test_a_run_that_kills_its_workers_is_told_of(begun: Sweep) -> None:
    error = distributed.KilledWorker("0000", None, 3)
    assert "4 workers died while they made it" in farm._sentence(error)
    assert farm._sentence(OSError("full")).startswith("run: its worker stopped at OSError (full), but")


def test_when_interrupted_runs_are_ended_and_nothing_is_left(begun: Sweep, tmp_path: Path) -> None:
    (tmp_path / "hold").touch()
    local = set(Path("/tmp").glob("isl-emu-*"))

    def interrupt() -> None:
        await_that(lambda: len(begun_runs(tmp_path)) == 1)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        run_sweep(begun, QUIET, cluster="local:1")
    assert not any(is_alive(pid) for pid, _ in begun_runs(tmp_path))
    assert files_below(begun.path) == {"scenario.toml", "sweep.json", "sweep.parquet", "repeats.parquet"}
    assert set(Path("/tmp").glob("isl-emu-*")) <= local


@pytest.fixture
def scheduler(tmp_path: Path) -> Iterator[tuple[Path, subprocess.Popen[bytes], subprocess.Popen[bytes]]]:
    """The scheduler file of a cluster of programs, the scheduler, and its worker."""
    file = tmp_path / "scheduler.json"
    dask = [sys.executable, "-m", "dask"]
    words = (
        ["scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file)],
        ["worker", "--scheduler-file", str(file), "--nthreads", "1", "--local-directory", str(tmp_path), "--no-nanny"],
    )
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": ROOT}
    programs = [subprocess.Popen([*dask, *words[0]], **quiet), subprocess.Popen([*dask, *words[1]], **quiet)]
    try:
        await_that(file.exists)
        yield file, programs[0], programs[1]
    finally:
        for program in programs:
            program.kill()
            program.wait()


def test_when_the_scheduler_dies_the_sweep_ends_and_the_worker_leaves_nothing(
    begun: Sweep, tmp_path: Path, scheduler: tuple[Path, subprocess.Popen[bytes], subprocess.Popen[bytes]]
) -> None:
    file, program, worker = scheduler
    (tmp_path / "hold").touch()

    def kill() -> None:
        await_that(lambda: len(begun_runs(tmp_path)) == 1)
        program.kill()

    threading.Thread(target=kill).start()
    with pytest.raises(
        MachineError, match="the scheduler tcp://.* does not answer any more, .* finished runs are kept"
    ):
        run_sweep(begun, QUIET, cluster=str(file))
    worker.wait(PATIENCE_S)
    await_that(lambda: not any(is_alive(pid) for pid, _ in begun_runs(tmp_path)))
    assert not (begun.path / "under-way").exists()


@pytest.mark.parametrize(
    ("seats", "threads", "told"),
    [
        (
            {"a": Seat("m", "alice", "", "", "x: is y, but z; do w")},
            {"a": 1},
            r"worker a \(alice\) cannot make a run \(x: is y",
        ),
        (
            {"a": Seat("m", "alice", "exact", "", ""), "b": Seat("n", "bob", "real", "no kernel", "")},
            {"a": 1, "b": 1},
            r"worker b \(bob\) has real time \(no kernel\) and a \(alice\) exact time",
        ),
        ({"a": Seat("m", "alice", "real", "asked", "")}, {"a": 2}, "alice would make 2 runs at once in real time"),
        (
            {"a": Seat("m", "alice", "real", "asked", ""), "b": Seat("m", "alice", "real", "asked", "")},
            {"a": 1, "b": 1},
            "alice would make 2 runs at once in real time",
        ),
    ],
)
def test_workers_that_would_make_other_runs_are_refused(
    seats: dict[str, Seat], threads: dict[str, int], told: str
) -> None:
    with pytest.raises(MachineError, match=told):
        farm.check_seats(seats, threads)


def test_one_real_time_run_a_machine_or_many_exact_ones_are_not() -> None:
    real = {"a": Seat("m", "alice", "real", "", ""), "b": Seat("n", "bob", "real", "", "")}
    farm.check_seats(real, {"a": 1, "b": 1})
    farm.check_seats({"a": Seat("m", "alice", "exact", "", "")}, {"a": 8})


def test_a_folder_is_shared_only_if_it_is_the_same(tmp_path: Path) -> None:
    job = Job("0000", "", [], "token", str(tmp_path), "mark", str(tmp_path), {}, versions())
    assert not is_shared(job)
    (tmp_path / "token").write_text("of another machine")
    assert not is_shared(job)
    (tmp_path / "token").write_text("mark")
    assert is_shared(job)


def test_what_is_packed_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "a" / "empty").mkdir(parents=True)
    (tmp_path / "a" / "old").write_text("old")
    os.utime(tmp_path / "a" / "old", (0, 0))
    (tmp_path / "a" / "link").symlink_to("/etc/passwd")
    (tmp_path / "a" / "folder").symlink_to("/etc")
    os.mkfifo(tmp_path / "a" / "pipe")
    (tmp_path / "b").mkdir()
    unpack(pack(tmp_path / "a"), tmp_path / "b")
    assert files_below(tmp_path / "b") == {"empty", "old"}
