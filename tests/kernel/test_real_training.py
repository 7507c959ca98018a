"""Real gradients over real links: PyTorch in containers learns, without a satellite that is lost, and with it again."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

pytest.importorskip("torch", reason="real training needs PyTorch, the extra train")

from isl_emu.errors import WorkloadError
from isl_emu.live.execute import start_containers
from isl_emu.network.net import IslNet
from isl_emu.nodes.containers import Container
from isl_emu.parts.live_run import LiveRun, Phases
from isl_emu.parts.training.torch_job import CoordinatedJob, start_ranks
from isl_emu.progress import Steps
from isl_emu.runs.clock import RunClock, RunTimes
from isl_emu.runs.execution import Execution
from isl_emu.runs.folder import RunFolder
from isl_emu.runs.journal import read_journal
from isl_emu.runs.process import Watch
from isl_emu.scenario.parse import parse_scenario
from tests.kernel.test_training import COUNT, LOST, NAMES, lost_for_a_while
from tests.nets import live_net
from tests.plans import MS, SECOND, make_plan, ring_edges
from tests.scenarios import head, shell, table

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("netem")]
PATIENCE_S = 240
KILLED = NAMES[1]
REAL = {"cpus": 1.0, "layers": 1, "heads": 2, "context": 16, "batch": 8, "learning_rate": 0.01}


def live_run(net: IslNet, plan, folder: Path, undo: ExitStack, real: dict[str, Any], **job: Any) -> LiveRun:
    (folder / "journal").mkdir(exist_ok=True)
    text = head(start="2026-03-20T04:00:00Z", duration="300 s") + shell(4, lasers="none")
    text += table("[training]", timeout="3 s", **job) + table("training.real", **REAL, **real)
    scenario = parse_scenario(text, "here")
    clock = RunClock.create(folder / "journal", 1.0)
    phases = Phases(Steps(Console(quiet=True)), Execution())
    containers: dict[str, Container] = {}
    start_containers(scenario, net, net.run_directory, undo, containers)
    watch = Watch(folder / "journal", clock.now_ns)
    undo.callback(watch.close)
    return LiveRun(RunFolder(folder), scenario, plan, clock, net, containers, watch, phases, undo)


def rows_until(live: LiveRun, learning, enough) -> list[dict]:
    """The rows of a job until there are enough of them."""
    path, end_s = live.folder.journal / "training.jsonl", time.monotonic() + PATIENCE_S
    t0_ns = live.clock.now_ns()
    with ExitStack() as ending:
        activity = CoordinatedJob(live, learning)
        activity.begin(RunTimes(t0_ns, t0_ns + live.plan.grid.duration_ns), ending)
        while not enough(rows := list(read_journal(path).records)):
            assert time.monotonic() < end_s, rows
            activity.check()
            time.sleep(0.1)
    return rows


@pytest.fixture
def undo() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_it_learns_without_lost_satellites_and_takes_back_one_that_returns(tmp_path: Path, undo: ExitStack) -> None:
    plan, stop = lost_for_a_while(), threading.Event()
    with live_net(plan, tmp_path) as (net, replay), ThreadPoolExecutor(1) as executor, undo:
        live = live_run(net, plan, tmp_path, undo, {"width": 16})
        (learning,) = start_ranks(live, [0])
        replaying = executor.submit(replay.run, time.monotonic_ns() + SECOND, stop)

        def others_go_on(rows: list[dict]) -> bool:
            """Once the lost one is back another one's process is killed, and three are left."""
            lost = [row["lost"] for row in rows if row["lost"]]
            if len(lost) == 1 and rows[-1]["outcome"] == "completed" and LOST in rows[-1]["participants"]:
                learning._processes[KILLED].kill()
            return len(lost) == 2 and rows[-1]["outcome"] == "completed"

        rows = rows_until(live, learning, others_go_on)
        stop.set()
        replaying.result()
    rows = [row for row in rows if row["outcome"] != "interrupted"]
    lost, killed = [place for place, row in enumerate(rows) if row["lost"]]
    assert (rows[lost]["lost"], rows[killed]["lost"]) == ([LOST], [KILLED])
    assert sorted(rows[-1]["participants"]) == sorted({*NAMES} - {KILLED})
    without = [row for row in rows[lost + 1 : killed] if LOST not in row["participants"]]
    assert without
    assert all(row["outcome"] == "completed" and len(row["participants"]) == COUNT - 1 for row in without)
    back = next(row for row in rows[lost + 1 :] if LOST in row["participants"])
    assert back["handed_over_byte"] >= (COUNT - 1) * 3 * 4 * learning.parameters  # weights and both moments of Adam
    steps = [row["step"] for row in rows if row["outcome"] in ("completed", "handed-over")]
    assert steps == list(range(len(steps)))
    assert rows[-1]["loss"] < 0.9 * rows[0]["loss"]


def test_diloco_sends_as_theory_says_but_seldom(tmp_path: Path, undo: ExitStack) -> None:
    plan = make_plan(COUNT, [], [ring_edges(COUNT, 5 * MS)] * PATIENCE_S, rate_bit_s=50_000_000)
    with live_net(plan, tmp_path) as (net, _), undo:
        job = {"method": "diloco", "inner_steps": 20, "steps": 4, "satellites": ["p00s0[02]"]}
        live = live_run(net, plan, tmp_path, undo, {"width": 32}, **job)
        (learning,) = start_ranks(live, [0])
        rows = rows_until(live, learning, lambda rows: len(rows) == 4)
    assert [(row["step"], row["outcome"], row["local_steps"]) for row in rows] == [
        (step, "completed", 20) for step in range(4)
    ]
    assert {name for row in rows for name in row["participants"]} == {NAMES[0], NAMES[2]}
    for row in rows:
        assert row["sent_byte"] == pytest.approx([row["theory_byte"]] * 2, rel=0.03)
        assert row["theory_byte"] == 4 * learning.parameters
        assert row["collective_ns"] > 0.95 * row["predicted_ns"]
    assert rows[-1]["loss"] < 0.8 * rows[0]["loss"]


def test_too_little_memory_is_said_before_the_run(tmp_path: Path, undo: ExitStack) -> None:
    plan = make_plan(COUNT, [], [ring_edges(COUNT, 5 * MS)])
    with live_net(plan, tmp_path) as (net, _), undo:
        live = live_run(net, plan, tmp_path, undo, {"memory": "60 MiB"}, satellites=["p00s0[02]"])
        with pytest.raises(WorkloadError, match="needs more memory than training.real.memory allows"):
            start_ranks(live, [0])
