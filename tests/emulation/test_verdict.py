"""A run that is overloaded on purpose is invalid for just that reason. A quiet one is valid: test_course.

Real time: in exact time no machine can be too slow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from isl_emu.machine.place import choose_place
from tests.runs import COMMAND, INVALID, PATIENCE_S, isl_emu, wait_for
from tests.scenarios import quiet_ring

pytestmark = pytest.mark.emulation

BUSY = "while :; do :; done"
# Takes its CPU for the first four of each ten hundredths of a second, as the others take theirs at the same time: a
# guest finds none free. Before a guest that goes first, too, if it may.
URGENT = """
import contextlib, os, sys, time
os.sched_setaffinity(0, {int(sys.argv[1])})
with contextlib.suppress(PermissionError):
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(90))
while True:
    while time.monotonic() % 0.1 < 0.04:
        pass
    time.sleep(0.1 - time.monotonic() % 0.1)
"""


def judged(out: Path) -> dict[str, Any]:
    """What fidelity.json says."""
    return json.loads((out / "fidelity.json").read_text())


@pytest.mark.alone
def test_a_busy_cpu_makes_a_run_invalid(tmp_path: Path) -> None:
    """Busy programs in the nodes, and outside of the guest, if there is one, on all CPUs."""
    out, scenario, cpus = tmp_path / "out", tmp_path / "ring.toml", os.sched_getaffinity(0)
    scenario.write_text(quiet_ring(cpu_saturated_ratio=0.1, cpu_waiting_ratio=0.1))
    outside = [subprocess.Popen([sys.executable, "-c", URGENT, str(cpu)]) for cpu in cpus]
    inside: list[subprocess.Popen] = []
    try:
        command = [*COMMAND, "run", str(scenario), "--clock", "real", "--until", "6s", "--out", str(out)]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as run:

            def is_live() -> bool:
                assert run.poll() is None
                return isl_emu("status", "--run", out).returncode == 0

            wait_for(is_live, "the run")
            busy = [*COMMAND, "exec", "--run", str(out), "p00s05", "--", "sh", "-c", BUSY]
            nowhere = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            inside += [subprocess.Popen(busy, **nowhere) for _ in cpus]
            assert run.wait(PATIENCE_S) == INVALID
    finally:
        for process in (*outside, *inside):
            process.kill()
            process.wait()
    reasons = judged(out)["reasons"]
    assert any("it was saturated for" in reason for reason in reasons)
    waited = any("the guest kernel waited for its CPU" in reason for reason in reasons)
    assert waited == (choose_place("auto").kind == "guest")
    assert len(reasons) == 1 + waited, reasons


def test_more_instants_than_there_is_time_for_make_a_run_invalid(tmp_path: Path) -> None:
    """Twenty thousand instants a second: finding out what changes takes longer than that."""
    out, scenario = tmp_path / "out", tmp_path / "ring.toml"
    scenario.write_text(quiet_ring("50 ms", step="50 us", lateness_p99="50 us"))
    done = isl_emu("run", scenario, "--clock", "real", "--out", out)
    assert done.returncode == INVALID, done.stdout + done.stderr
    (reason,) = judged(out)["reasons"]
    assert "99th percentile of how late changes were" in reason and "at most 50 us" in reason
    assert judged(out)["replay"]["lateness_ns"]["p50"] > 50_000
