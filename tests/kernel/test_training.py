"""Training over real links: bytes at the interfaces as ring theory says, and a satellite that is lost and returns."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from isl_emu.linkplan.plan import LinkPlan
from isl_emu.network.net import IslNet
from isl_emu.parts.training.light_job import LightRanks, lead
from isl_emu.parts.training.light_rank import Task
from isl_emu.parts.training.planned_ways import PlannedWays
from isl_emu.parts.training.results import ELEMENT_BYTE
from isl_emu.runs.journal import Journal
from isl_emu.scenario.training import Modelled, Training
from isl_emu.timebase import MonotonicClock
from isl_emu.units import NS_PER_S
from tests.nets import endpoints_of, live_net
from tests.plans import MS, SECOND, make_plan, ring_edges

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("netem")]
COUNT, PORT = 4, 29_500
NAMES = tuple(f"p00s{slot:02d}" for slot in range(COUNT))
LOST = "p00s02"
FRAME_OVERHEAD_BYTE = 66  # Ethernet 14, IPv4 20, TCP 20 with time stamps 12
PATIENCE_S = 240
RATE_BIT_S = 50_000_000


def task(net: IslNet, job: Training, elements: int, compute_ns: int) -> Task:
    addresses, clock = {name: net.get(name).address for name in NAMES}, MonotonicClock()
    return Task(NAMES, addresses, PORT, job.collective, {}, elements, compute_ns, job.timeout_ns, clock,
                clock.now_ns(), threading.Event())  # fmt: skip


class Watched(Journal):
    """A journal that keeps its records, and shows each to a function."""

    def __init__(self, path: Path, look: Callable[[list[dict[str, Any]]], None]):
        super().__init__(path)
        self.rows: list[dict[str, Any]] = []
        self._look = look

    def append(self, record: dict[str, Any]) -> None:
        super().append(record)
        self.rows.append(record)
        self._look(self.rows)


def train(net: IslNet, plan: LinkPlan, job: Training, shared: Task, path: Path, look=lambda rows: None) -> list[dict]:
    with Watched(path, look) as journal, LightRanks(shared, endpoints_of(net)) as ranks:
        until_ns = shared.clock.now_ns() + PATIENCE_S * NS_PER_S
        lead(job, shared, ranks, PlannedWays(plan, job.ring, NAMES), journal, until_ns)
    return journal.rows


def sent(net: IslNet) -> dict[str, tuple[int, int]]:
    """What each satellite has put on its links so far: bytes, and frames."""
    counters = {}
    for name in NAMES:
        links = json.loads(net.get(name).cmd("ip -s -j link"))
        lasers = [link["stats64"]["tx"] for link in links if link["ifname"].startswith("to-")]
        counters[name] = sum(tx["bytes"] for tx in lasers), sum(tx["packets"] for tx in lasers)
    return counters


def test_a_ring_sends_what_theory_says_at_the_interfaces(tmp_path: Path) -> None:
    job = Training(steps=4, timeout="60 s", modelled=Modelled(gradient="800 kB", compute_time="10 ms"))
    plan = make_plan(COUNT, [], [ring_edges(COUNT, 5 * MS)], rate_bit_s=RATE_BIT_S)
    with live_net(plan, tmp_path) as (net, _):
        before = sent(net)
        rows = train(net, plan, job, task(net, job, 800_000 // ELEMENT_BYTE, 10 * MS), tmp_path / "training.jsonl")
        after = sent(net)
    assert [row["outcome"] for row in rows] == ["completed"] * 4
    assert rows[0]["participants"] in ([*NAMES], [NAMES[0], *NAMES[:0:-1]])
    theory_byte = 4 * 2 * (COUNT - 1) / COUNT * 800_000
    for name in NAMES:
        byte, frames = (end - start for start, end in zip(before[name], after[name]))
        assert byte - frames * FRAME_OVERHEAD_BYTE == pytest.approx(theory_byte, rel=0.03)
    for row in rows:
        assert row["collective_ns"] >= 0.95 * row["predicted_ns"]  # no earlier than light and the line allow
        assert row["sent_byte"] == row["received_byte"] == [row["theory_byte"]] * COUNT


def lost_for_a_while() -> LinkPlan:
    """A ring of four, of which one is out of reach from the third second until the eleventh."""
    whole = ring_edges(COUNT, 5 * MS)
    alone = {edge: delay for edge, delay in whole.items() if NAMES.index(LOST) not in edge}
    return make_plan(COUNT, [], [whole] * 2 + [alone] * 8 + [whole] * PATIENCE_S, rate_bit_s=RATE_BIT_S, step_ns=SECOND)


@pytest.fixture
def moving(tmp_path: Path) -> Iterator[tuple[IslNet, LinkPlan]]:
    plan, stop = lost_for_a_while(), threading.Event()
    with live_net(plan, tmp_path) as (net, replay), ThreadPoolExecutor(1) as executor:
        replaying = executor.submit(replay.run, time.monotonic_ns() + SECOND, stop)
        yield net, plan
        stop.set()
        replaying.result()


def test_a_lost_satellite_is_done_without_and_taken_back(moving: tuple[IslNet, LinkPlan], tmp_path: Path) -> None:
    net, plan = moving
    modelled = Modelled(gradient="400 kB", compute_time="100 ms")
    job = Training(timeout="2 s", modelled=modelled)
    shared = task(net, job, 400_000 // ELEMENT_BYTE, 100 * MS)

    def end_when_it_is_back(rows: list[dict]) -> None:
        lost = any(row["lost"] for row in rows)
        if lost and rows[-1]["outcome"] == "completed" and LOST in rows[-1]["participants"]:
            shared.stopped.set()

    rows = train(net, plan, job, shared, tmp_path / "training.jsonl", end_when_it_is_back)
    rows = [row for row in rows if row["outcome"] not in ("interrupted", "unfinished")]
    (lost,) = [place for place, row in enumerate(rows) if row["lost"]]
    assert lost > 0
    assert rows[lost]["lost"] == [LOST]
    assert all(len(row["participants"]) == COUNT for row in rows[:lost])
    without = [row for row in rows[lost + 1 :] if LOST not in row["participants"]]
    assert without
    assert all(row["outcome"] == "completed" and len(row["participants"]) == COUNT - 1 for row in without)
    back = next(row for row in rows[lost + 1 :] if LOST in row["participants"])
    assert (back["outcome"], back["handed_over_byte"]) == ("completed", (COUNT - 1) * 400_000)
    steps = [row["step"] for row in rows if row["outcome"] in ("completed", "handed-over")]
    assert steps == list(range(len(steps)))  # none is skipped, and none is done twice
