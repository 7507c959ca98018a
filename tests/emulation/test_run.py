"""The main job as a user does it: the command line from outside, on this machine, with nothing faked."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pexpect
import pyarrow.parquet as pq
import pytest

from isl_emu.errors import MachineError
from isl_emu.machine.uml import find_uml
from isl_emu.runs.directory import registered_runs
from tests.runs import COMMAND, INVALID, PATIENCE_S, ROOT, chapters, finished, isl_emu, rows, wait_for
from tests.scenarios import quiet_ring, shipped, table

pytestmark = pytest.mark.emulation

SHORT = {
    'duration = "120 s"': 'duration = "40 s"',
    'mean_interval = "9 s"': 'mean_interval = "2 s"',
    'stop_after = "95 s"': 'stop_after = "22 s"',
    "max_answer_tokens = 48": "max_answer_tokens = 16",
}
THREE_BODY = ROOT / "topologies" / "three-body.toml"
IRIDIUM = ROOT / "topologies" / "iridium-star.toml"
PATH = ["p00s01", "p00s02", "p00s03"]
MARK = "ISL_EMU_TEST"  # a variable that all processes of a test's runs inherit


def _has_exact_time() -> bool:
    try:
        return find_uml().exact
    except MachineError:
        return False


CLOCKS = [
    pytest.param(("--clock", "real"), id="real"),
    pytest.param(
        ("--clock", "exact", "--pace", "1"),
        id="exact",
        marks=pytest.mark.skipif(not _has_exact_time(), reason="the kernel that has exact time is not built"),
    ),
]


def _guests(mark: str) -> list[int]:
    """Processes of the guest kernels and calendars that a test has started."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            ours = words[0].endswith((b"/linux.uml", b"/linux")) or b"isl_emu.machine.calendar_process" in words
            if ours and f"{MARK}={mark}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def _left_behind() -> set[str]:
    """Runs that are registered though their owner is gone, network namespaces and mounts."""
    mounts = [line for line in Path("/proc/mounts").read_text().splitlines() if "isl-" in line or "isl-emu" in line]
    abandoned = [run.run_id for run in registered_runs() if run.owner_pid is None]
    return {*abandoned, *map(str, Path("/run/netns").glob("isl-*")), *mounts}


@pytest.fixture
def nothing_left(monkeypatch, request):
    """After the test, nothing of its runs is left."""
    mark = f"{os.getpid()} {request.node.name}"
    monkeypatch.setenv(MARK, mark)
    before = _left_behind()
    yield
    wait_for(lambda: not _guests(mark), "the end of the guest")
    # Waited for, since others may make and remove theirs beside us.
    wait_for(lambda: _left_behind() <= before, "the end of all that it made")


@pytest.fixture(scope="module")
def main_job(tmp_path_factory) -> Path:
    """The results of a short main job."""
    out = tmp_path_factory.mktemp("run") / "three body"  # a blank in the path must not matter
    said = finished(shipped("three-body", SHORT), out, "--seed", "2", report=True)
    (out / "stdout.txt").write_text(said)
    return out


def test_the_report_tells_of_all_that_was_carried(main_job):
    told = ["The network", "Planned and measured delay", "Path changes", "Links", "Questions and answers"]
    assert chapters(main_job)[:6] == [*told, "Model servers"]


def test_every_question_has_an_outcome_and_most_an_answer(main_job):
    requests = rows(main_job, "requests")
    assert len(requests) >= 3
    assert {row["outcome"] for row in requests} <= {"completed", "unfinished"}
    completed = [row for row in requests if row["outcome"] == "completed"]
    assert len(completed) > len(requests) / 2
    for row in completed:
        assert row["answer"].strip()
        assert row["path_at_send"][0] == row["station"]
        assert row["path_at_send"][-1] == row["satellite"]
        assert row["hops_at_send"] == len(row["path_at_send"]) - 1
        assert row["ttft_ns"] > row["planned_rtt_at_send_ns"]
        assert row["server_prompt_ns"] > 0
        assert row["answer_tokens"] > 0


def test_measured_delay_is_what_was_planned(main_job):
    """Physics is the floor; above it at most 0.5 ms a hop, in the median, where the CPU is ours."""
    probes = rows(main_job, "probes")
    for pair in {(row["a"], row["b"]) for row in probes}:
        errors = sorted(
            row["error_ns"] / row["hops"]
            for row in probes
            if (row["a"], row["b"]) == pair and row["error_ns"] is not None and not row["straddles_change"]
        )
        assert len(errors) > 10, pair
        assert -100_000 < errors[len(errors) // 2] < 500_000, (pair, errors)


def test_the_folder_explains_itself(main_job):
    fidelity = json.loads((main_job / "fidelity.json").read_text())
    assert fidelity["verdict"] in ("valid", "invalid")
    assert fidelity["readback_mismatches"] == 0
    provenance = json.loads((main_job / "provenance.json").read_text())
    assert provenance["seed"] == 2
    assert provenance["execution"]["error"] is None
    assert len(rows(main_job, "changes")) > 2 * 40  # of a ground link both ends, each second
    assert (main_job / "summary.txt").read_text().splitlines()[0] in (main_job / "stdout.txt").read_text()
    assert not (main_job / "journal").exists()


def test_slow_motion_is_right_in_emulated_time(tmp_path, nothing_left):
    out, begun_s = tmp_path / "out", time.monotonic()
    often = shipped("iridium-star", {'interval = "1 s"': 'interval = "250 ms"'})
    finished(often, out, "--duration", "3s", "--slowdown", "3")
    assert time.monotonic() - begun_s > 9  # on any machine: nothing is faster than its clock
    assert "SLOW MOTION" in (out / "summary.txt").read_text()
    probes = rows(out, "probes")
    errors = sorted(abs(row["error_ns"]) / row["hops"] for row in probes if row["error_ns"] is not None)
    assert len(errors) >= 10
    assert errors[len(errors) // 2] < 500_000
    assert all(0 <= row["t_send_ns"] < 3_000_000_000 for row in probes)


def test_a_saved_plan_replays_identically(tmp_path, nothing_left):
    saved = tmp_path / "iridium.parquet"
    planned = isl_emu("plan", IRIDIUM, "--duration", "5s", "--out", saved)
    assert planned.returncode == 0, planned.stderr
    finished(saved, tmp_path / "out")
    assert (tmp_path / "out" / "plan.parquet").read_bytes() == saved.read_bytes()
    assert pq.read_table(tmp_path / "out" / "instants.parquet").num_rows == 5


def test_the_command_line_of_mininet_reaches_nodes_by_name(tmp_path, nothing_left):
    """p00s00 computes, so it is a container."""
    scenario = tmp_path / "ring.toml"
    scenario.write_text(quiet_ring() + table("compute", satellites=["p00s00"]))
    with pexpect.spawn(
        sys.executable,
        ["-m", "isl_emu", "run", str(scenario), "--cli", "--out", str(tmp_path / "out")],
        timeout=PATIENCE_S,
        encoding="utf-8",
        dimensions=(40, 120),
    ) as session:
        session.expect("mininet> ")
        session.sendline("p00s00 ping -c 2 -i 0.2 gs-chengdu")
        session.expect("2 packets transmitted, 2 received")
        session.expect("mininet> ")
        session.sendline("p00s00 hostname; getent ahostsv4 gs-chengdu; echo $$ > /etc/mine")
        session.expect("p00s00\r+\n")
        session.expect(r"10\.\d+\.\d+\.\d+ +STREAM gs-chengdu")
        session.expect("mininet> ")
        session.sendline("p00s00 ping gs-chengdu")
        session.expect("bytes from")
        session.sendintr()
        session.expect("mininet> ")
        session.sendline("exit")
        session.expect(pexpect.EOF)
    session.close()
    assert session.exitstatus in (0, INVALID)
    assert not Path("/etc/mine").exists()


def _started(out: Path, *clock: str, **streams) -> subprocess.Popen:
    """A run whose replay has begun, and that can be asked."""
    command = [*COMMAND, "run", str(IRIDIUM), *clock, "--out", str(out)]
    run = subprocess.Popen(command, text=True, **streams)
    wait_for(lambda: isl_emu("status", "--run", out).returncode == 0, "the replay")
    return run


@pytest.mark.parametrize("clock", CLOCKS)
def test_a_live_run_answers_a_second_terminal_and_ctrl_c_ends_it_in_order(tmp_path, nothing_left, clock):
    out = tmp_path / "out"
    run = _started(out, *clock, stdout=subprocess.PIPE)
    assert f"results: {out}" in isl_emu("status", "--run", out).stdout
    link = isl_emu("link", "p00s00", "p00s01", "--run", out)
    assert link.stdout.startswith("plan: up, ")
    assert link.stdout.count("qdisc netem") == 2
    ping = isl_emu("exec", "--run", out, "p00s00", "--", "ping", "-c", "1", "p00s03")
    assert "1 received" in ping.stdout, ping.stdout + ping.stderr
    trace = isl_emu("exec", "--run", out, "p00s00", "--", "traceroute", "-q", "1", "p00s03")
    planned = isl_emu("path", IRIDIUM, "p00s00", "p00s03")
    assert [line.split()[1] for line in trace.stdout.splitlines()[1:]] == PATH
    assert [line.split()[-1] for line in planned.stdout.splitlines()[:-1]] == PATH
    assert isl_emu("exec", "--run", out, "p00s00", "--", "sh", "-c", "exit 9").returncode == 9
    assert "no such node" in isl_emu("exec", "--run", out, "p99s99", "--", "true").stderr
    run.send_signal(signal.SIGINT)
    output, _ = run.communicate(timeout=PATIENCE_S)
    assert run.returncode == 130
    assert "INVALID" in output
    assert "interrupted" in (out / "summary.txt").read_text()
    over = isl_emu("status", "--run", out)
    assert (over.returncode, "there is none" in over.stderr) == (1, True)


@pytest.mark.parametrize("clock", CLOCKS)
def test_a_killed_run_leaves_nothing_after_clean(tmp_path, nothing_left, clock):
    out = tmp_path / "out"
    run = _started(out, *clock, stdout=subprocess.DEVNULL)
    run.kill()
    run.wait()
    cleaned = isl_emu("clean")
    assert cleaned.returncode == 0, cleaned.stderr
    assert f"isl-emu conclude {out}" in cleaned.stdout
    concluded = isl_emu("conclude", out)
    assert concluded.returncode == 0, concluded.stderr
    assert "it was killed" in (out / "summary.txt").read_text()
    assert pq.read_table(out / "instants.parquet").num_rows > 0


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--model", "README.md"], "GGUF"),
        (["--model", "no-such.gguf"], "no-such.gguf"),
        (["--duration", "60"], "without a unit"),
        (["--out", "topologies"], "not empty"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_built(words, complaint):
    done = isl_emu("run", THREE_BODY, *words)
    assert done.returncode in (1, 2)
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr
