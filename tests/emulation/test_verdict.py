"""A run that is overloaded on purpose comes out invalid for just that reason. A quiet one is valid: see test_course."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from isl_emu.machine.place import choose_place
from tests.emulation.test_course import COMMAND, PATIENCE_S, SCENARIO, ask

pytestmark = pytest.mark.emulation

BUSY = "while :; do :; done"


def judged(out: Path) -> dict[str, Any]:
    """What fidelity.json says."""
    return json.loads((out / "fidelity.json").read_text())


def quiet_ring(folder: Path, **limits: str) -> Path:
    """The quiet ring without its computer and without probes, with other limits."""
    text = Path(SCENARIO).read_text()
    text = text[: text.index("[compute]")] + text[text.index("[fidelity]") :]
    for name, limit in limits.items():
        lines = [f"{name} = {limit}" if line.startswith(f"{name} =") else line for line in text.splitlines()]
        text = "\n".join(lines)
    path = folder / "ring.toml"
    path.write_text(text)
    return path


def test_a_busy_cpu_makes_a_run_invalid(tmp_path: Path) -> None:
    """Busy programs in the nodes, and outside of the guest, if there is one, on all CPUs."""
    out, cpus = tmp_path / "out", os.cpu_count()
    scenario = quiet_ring(tmp_path, cpu_saturated_ratio="0.1", cpu_waiting_ratio="0.1")
    outside = [subprocess.Popen(["sh", "-c", BUSY]) for _ in range(cpus)]
    inside: list[subprocess.Popen] = []
    try:
        command = [*COMMAND, "run", str(scenario), "--until", "6s", "--out", str(out)]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as run:
            deadline = time.monotonic() + PATIENCE_S
            while ask(out, "status").returncode != 0:
                assert time.monotonic() < deadline and run.poll() is None
            busy = [*COMMAND, "exec", "--run", str(out), "p00s05", "--", "sh", "-c", BUSY]
            nowhere = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            inside += [subprocess.Popen(busy, **nowhere) for _ in range(cpus)]
            assert run.wait(PATIENCE_S) == 3
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
    out = tmp_path / "out"
    ring = quiet_ring(tmp_path, lateness_p99='"50 us"').read_text()
    ring = ring.replace('duration = "30 s"', 'duration = "50 ms"\nstep = "50 us"')
    (tmp_path / "ring.toml").write_text(ring)
    command = [*COMMAND, "run", str(tmp_path / "ring.toml"), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 3, done.stdout + done.stderr
    (reason,) = judged(out)["reasons"]
    assert "99th percentile of how late changes were" in reason and "at most 0.05 ms" in reason
    assert judged(out)["replay"]["lateness_ns"]["p50"] > 50_000
