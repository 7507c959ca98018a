"""Light ranks over loopback: real sockets, exact sums, and the way on when a line breaks."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from isl_emu.parts.training.light_job import LightRanks, lead, really_sent_elements
from isl_emu.parts.training.light_rank import Task
from isl_emu.parts.training.meeting import Reception, call_roll, largest_group, open_listener
from isl_emu.parts.training.planned_ways import PlannedWays
from isl_emu.runs.endpoints import Endpoint
from isl_emu.runs.journal import Journal, read_journal
from isl_emu.scenario.training import Modelled, Training
from isl_emu.timebase import MonotonicClock
from isl_emu.units import NS_PER_S
from tests.plans import MS, make_plan, ring_edges

PORT = 29_477
PATIENCE_NS = 60 * NS_PER_S
COUNT = 4
NAMES = tuple(f"p00s{slot:02d}" for slot in range(COUNT))
ADDRESSES = {name: f"127.77.0.{number}" for number, name in enumerate(NAMES, 1)}
ENDPOINTS = {name: Endpoint(None, ADDRESSES[name], None) for name in NAMES}


def job(**changes) -> Training:
    modelled = Modelled(gradient="48 kB", compute_time="10 ms", tokens=100)
    return Training(**{"steps": 3, "timeout": "30 s", "modelled": modelled, **changes})


def task(training: Training, elements: int = 12_000, timeout_ns: int = PATIENCE_NS) -> Task:
    clock = MonotonicClock()
    planes = {name: place // 2 for place, name in enumerate(NAMES)}
    return Task(NAMES, ADDRESSES, PORT, training.collective, planes, elements, 10 * MS, timeout_ns, clock,
                clock.now_ns(), threading.Event())  # fmt: skip


def rows_of(training: Training, shared: Task, folder: Path, ranks_class=LightRanks) -> list[dict]:
    plan = make_plan(COUNT, [], [ring_edges(COUNT, MS)])
    with Journal(folder / "training.jsonl") as journal, ranks_class(shared, ENDPOINTS) as ranks:
        until_ns = shared.t0_ns + PATIENCE_NS
        lead(training, shared, ranks, PlannedWays(plan, training.ring, NAMES), journal, until_ns)
    return list(read_journal(folder / "training.jsonl").records)


@pytest.mark.parametrize("collective", ["ring", "tree", "hierarchical"])
def test_the_sums_are_right_and_as_many_bytes_as_in_theory(collective: str, tmp_path: Path) -> None:
    rows = rows_of(job(collective=collective), task(job(collective=collective)), tmp_path)
    assert [(row["step"], row["outcome"], row["collective"]) for row in rows] == [
        (step, "completed", collective) for step in range(3)
    ]
    for row in rows:
        assert sum(row["sent_byte"]) == sum(row["received_byte"]) == COUNT * row["theory_byte"]
        assert row["theory_byte"] == 2 * (COUNT - 1) * 48_000 // COUNT  # a tree sends as much in the sum of all
        assert row["tokens"] == 100 * COUNT
        assert row["t_end_ns"] - row["t_start_ns"] >= 10 * MS
        assert all(time_ns >= 10 * MS for time_ns in row["compute_ns"])
        assert row["predicted_ns"] > 0


class OneBreaks(LightRanks):
    """In the first ring the lines of one rank break at the first step, and from then on it answers no call."""

    lost = NAMES[2]

    def train(self, names, order) -> None:
        super().train(names, order)
        if order["ring"] == 1:
            rank = self._ranks[self.lost]
            while rank._lines is None:
                self._task.clock.sleep_until_ns(self._task.clock.now_ns() + MS)
            rank._lines.shut_down()

    def call(self, caller: str, others) -> set[str]:
        return super().call(caller, others) - {self.lost}


def test_a_broken_ring_is_formed_anew_without_the_lost_one(tmp_path: Path) -> None:
    training = job(rejoin=False)
    rows = rows_of(training, task(training), tmp_path, OneBreaks)
    assert (rows[0]["outcome"], rows[0]["lost"], rows[0]["t_start_ns"]) == ("lost", [OneBreaks.lost], None)
    assert [(row["step"], row["outcome"]) for row in rows[1:]] == [(step, "completed") for step in range(3)]
    assert all(sorted(row["participants"]) == [NAMES[0], NAMES[1], NAMES[3]] for row in rows[1:])


class OneReturns(OneBreaks):
    """The same, but it answers again after a while."""

    calls = 0

    def call(self, caller: str, others) -> set[str]:
        self.calls += 1
        return LightRanks.call(self, caller, others) - ({self.lost} if self.calls == 1 else set())


def test_who_returns_takes_over_the_weights_and_trains_again(tmp_path: Path) -> None:
    training = job(steps=200)
    rows = rows_of(training, task(training, elements=1200), tmp_path, OneReturns)
    assert rows[0]["outcome"] == "lost"
    assert rows[-1]["step"] == 199
    assert sorted(rows[-1]["participants"]) == list(NAMES)
    returned = [row for row in rows if row["handed_over_byte"]]
    assert [row["handed_over_byte"] for row in returned] == [(COUNT - 1) * 4800]


def test_nothing_hangs_when_the_run_ends_in_the_middle_of_a_sum(tmp_path: Path) -> None:
    training = job(steps=None)
    shared = task(training)
    threading.Timer(0.3, shared.stopped.set).start()
    rows = rows_of(training, shared, tmp_path)
    assert rows[-1]["outcome"] == "unfinished"
    assert json.dumps(rows)


def test_a_roll_call_finds_who_listens() -> None:
    with Reception({0: open_listener("127.77.0.1", PORT + 1), 1: open_listener("127.77.0.2", PORT + 1)}):
        called = {"here": "127.77.0.2", "deaf": "127.77.0.3"}
        assert call_roll(None, "127.77.0.1", called, PORT + 1, 30.0) == {"here"}


def test_the_largest_group_goes_on() -> None:
    groups = [{"a", "c", "e"}, {"b", "d"}]
    assert largest_group("abcde", lambda caller, others: next(set(g) for g in groups if caller in g)) == list("ace")
    assert largest_group("ab", lambda caller, others: set()) == ["a"]
    assert largest_group("", lambda caller, others: set()) == []


def test_a_step_takes_as_long_as_the_board_needs() -> None:
    by_board = Modelled(parameters=1_000_000_000, tokens=4096, board="h100-pcie", utilisation=0.5)
    found_ns = by_board.step_ns(by_board.parameters, by_board.tokens)
    assert found_ns == pytest.approx(6e9 * 4096 / (0.5 * 756e12) * NS_PER_S)
    assert really_sent_elements(by_board, 0.001) == 500_000  # 2 GB, a thousandth of it
    assert Modelled(gradient="1 GB", compute_time="2 s").step_ns(None, None) == 2 * NS_PER_S
