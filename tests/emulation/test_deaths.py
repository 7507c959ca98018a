"""Whoever of a run is killed, the rest ends within seconds, nothing is left, and what was written becomes results."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest

from isl_emu.runs.directory import runs_root
from tests.kill_runs import Run
from tests.runs import PATIENCE_S, isl_emu, wait_for
from tests.scenarios import quiet_ring

pytestmark = pytest.mark.emulation


@pytest.mark.parametrize(
    ("clock", "who", "said"),
    [
        ("exact", "guardian", "signal 9 killed its guardian, and the guest with it"),
        ("exact", "calendar", "its calendar was killed by signal 9, SIGKILL"),
        ("exact", "launcher", ""),
        ("exact", "live part", "live part in the guest kernel: it was killed by signal 9, SIGKILL, but it ends with"),
        ("real", "guardian", "signal 9 killed its guardian, and the guest with it"),
    ],
)
def test_whoever_dies_takes_the_rest_along(clock: str, who: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "scenario.toml").write_text(quiet_ring("3000 s"))
    run = Run.started(tmp_path / "out", clock, tmp_path / "scenario.toml", 3000)
    wait_for(lambda: run.said("  emulating"), "the live part")
    time.sleep(0.5)
    assert len(run.processes()) > 2
    assert run.lose(who, random.Random(1), time.monotonic() + PATIENCE_S)
    wait_for(lambda: run.process.poll() is not None and not run.processes(), "the end of the rest")
    assert run.process.returncode == (-signal.SIGKILL if who == "launcher" else 1)
    assert run.said(said)
    isl_emu("clean")
    assert not (runs_root() / run.run_id).exists()
    assert isl_emu("conclude", run.out).returncode == 0
    assert "INVALID" in (run.out / "summary.txt").read_text()
