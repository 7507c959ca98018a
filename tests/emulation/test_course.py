"""A live run that is paused, goes on and ends early, from outside, with a model server and a user in the middle."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from isl_emu.units import NS_PER_S as S

pytestmark = pytest.mark.emulation

SCENARIO = str(Path(__file__).with_name("quiet-ring.toml"))
COMMAND = [sys.executable, "-m", "isl_emu"]
PATIENCE_S = 240  # only for telling a hang from a slow machine


def ask(out: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Ask the live run something."""
    command = [*COMMAND, words[0], "--run", str(out), *words[1:]]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)


def await_status(out: Path, text: str, run: subprocess.Popen) -> str:
    """What the run says of itself once that holds a text."""
    end = time.monotonic() + PATIENCE_S
    while text not in (status := ask(out, "status").stdout):
        assert time.monotonic() < end and run.poll() is None, status
    return status


def lines(out: Path) -> dict[str, int]:
    """How long each journal of traffic is."""
    names = ("instants", "probes", "requests", "load")
    return {name: (out / "journal" / f"{name}.jsonl").read_text().count("\n") for name in names}


def test_a_run_pauses_goes_on_and_ends_where_its_user_wants(tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [*COMMAND, "run", SCENARIO, "--pause-at", "2s", "--out", str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as run:
        assert await_status(out, "paused", run).startswith("paused at t = 2.0 s of 30 s")
        before = lines(out)
        assert "stands still" in ask(out, "exec", "p00s01", "--", "true").stdout
        assert ask(out, "exec", "p00s00", "--", "echo", "hello").stdout == "hello\n"
        assert ask(out, "link", "p00s00", "p00s01").stdout.count("qdisc netem") == 2
        assert lines(out) == before and before["instants"] == 3
        assert ask(out, "resume", "--until", "3s").stdout.endswith("paused at t = 3.000 s\n")
        assert ask(out, "resume").returncode == 0
        assert ask(out, "stop", "--at", "6500ms").stdout == "ends at t = 6.500 s\n"
        output, _ = run.communicate(timeout=PATIENCE_S)
    assert run.returncode == 0, output
    assert "until its user ended the run at 6.50 s" in output
    fidelity = json.loads((out / "fidelity.json").read_text())
    assert fidelity["verdict"] == "valid" and fidelity["ended_ns"] == 6_500_000_000
    assert fidelity["replay"]["planned_instants"] == 7
    assert [pause["t_ns"] for pause in fidelity["pauses"]] == [2 * S, 3 * S]
    probes = pq.read_table(out / "probes.parquet").to_pylist()
    sent = sorted(row["t_send_ns"] for row in probes if (row["a"], row["b"]) == ("gs-chengdu", "p00s00"))
    assert 25 < len(sent) <= 33 and max(b - a for a, b in zip(sent, sent[1:])) < 2 * S
    requests = pq.read_table(out / "requests.parquet").to_pylist()
    completed = [row for row in requests if row["outcome"] == "completed"]
    assert completed and all(row["network_ns"] is None or row["network_ns"] > 0 for row in completed)
    assert all(row["t_due_ns"] < 6_500_000_000 for row in requests)
