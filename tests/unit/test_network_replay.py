"""Replay against a network in memory and a clock that only sleeping moves."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from isl_emu.errors import NetworkError
from isl_emu.linkplan.fault_events import TERMS, Faults, FaultThing
from isl_emu.linkplan.faults import with_faults
from isl_emu.linkplan.plan import LinkPlan
from isl_emu.network.desired import ends_at, initial_ends
from isl_emu.network.interventions import Disturbance
from isl_emu.network.overrides import Override
from isl_emu.network.replay import CAUSES, Replay
from isl_emu.results.conclude import write_links
from isl_emu.timebase import ManualClock, MonotonicClock
from tests.fake_network import FakeBackend
from tests.plans import MS, SECOND, make_plan, make_routes

START_NS = 1_000_000 * SECOND
TRIANGLE = {(0, 1): 5 * MS, (1, 2): 5 * MS, (0, 2): 7 * MS}
BROKEN = {(0, 1): 5 * MS, (1, 2): 5 * MS}
LONGER = {edge: delay + MS for edge, delay in TRIANGLE.items()}


class SlowClock(ManualClock):
    """Oversleeps once, at a given deadline."""

    def __init__(self, at_ns: int, by_ns: int):
        super().__init__(START_NS)
        self._at_ns, self._by_ns = at_ns, by_ns

    def sleep_until_ns(self, deadline_ns: int) -> None:
        super().sleep_until_ns(deadline_ns + (self._by_ns if deadline_ns == self._at_ns else 0))


def replay_of(plan: LinkPlan, folder: Path, clock: ManualClock | None = None, bias_ns: int = 0) -> Replay:
    replay = Replay(plan, make_routes(plan), FakeBackend(plan), clock or ManualClock(START_NS), folder, bias_ns)
    replay.apply_initial()
    return replay


def instants(folder: Path) -> list[dict[str, int]]:
    return [json.loads(line) for line in (folder / "instants.jsonl").read_text().splitlines()]


def changes(folder: Path) -> list[dict[str, object]]:
    return pa.ipc.open_stream((folder / "changes.arrow").read_bytes()).read_all().to_pylist()


def final_ends(plan: LinkPlan, bias_ns: int = 0) -> np.ndarray:
    ends = initial_ends(plan, bias_ns)
    for k in range(plan.grid.count):
        ends = ends_at(plan, k, ends, bias_ns)
    return ends


def test_the_last_instant_is_what_remains(tmp_path: Path) -> None:
    plan = make_plan(3, [], [TRIANGLE, BROKEN, LONGER])
    replay = replay_of(plan, tmp_path, bias_ns=100_000)
    replay.run(START_NS, threading.Event())
    assert (replay.backend.ends == final_ends(plan, 100_000)).all()
    assert replay.verify_all() == replay.mismatches == []


def test_every_instant_is_recorded_in_time(tmp_path: Path) -> None:
    plan = make_plan(3, [], [TRIANGLE, BROKEN, LONGER])
    clock = ManualClock(START_NS)
    replay_of(plan, tmp_path, clock).run(START_NS, threading.Event())
    assert [row["k"] for row in instants(tmp_path)] == [0, 1, 2]
    assert [row["done_ns"] - row["planned_ns"] for row in instants(tmp_path)] == [0, 0, 0]
    assert clock.now_ns() == START_NS + 3 * SECOND


def test_changes_are_journalled_with_what_was_set(tmp_path: Path) -> None:
    plan = make_plan(3, [], [TRIANGLE, BROKEN], rate_scale=0.5)
    replay_of(plan, tmp_path, bias_ns=100_000).run(START_NS, threading.Event())
    rows = changes(tmp_path)
    assert len([row for row in rows if row["k"] == 0]) == 6
    assert [row for row in rows if row["k"] == 1] == [
        {"k": 1, "t_planned_ns": SECOND, "t_applied_ns": SECOND, "link": 1, "end": end, "up": False,
         "planned_delay_ns": 7 * MS, "set_delay_ns": 6_900_000, "rate_bit_s": 500_000_000, "queue_byte": 3_125_000,
         "loss_ratio": 1.0, "corruption_ratio": 0.0, "duplication_ratio": 0.0, "jitter_ns": 0}
        for end in (0, 1)
    ]  # fmt: skip


def test_nothing_breaks_before_its_replacement_is_made(tmp_path: Path) -> None:
    plan = make_plan(4, [], [{**BROKEN, (0, 2): 4 * MS, (2, 3): MS}, {**BROKEN, (0, 3): 2 * MS, (2, 3): MS}])
    replay = replay_of(plan, tmp_path)
    replay.backend.log.clear()
    replay.run(START_NS, threading.Event())
    assert [entry.split(" ")[0] for entry in replay.backend.log] == ["ends", "routes", "ends"]
    assert replay.backend.log[0] == "ends up 2 down 0"
    assert replay.backend.log[2] == "ends up 0 down 2"


def test_an_instant_that_is_missed_is_overtaken_by_the_newest(tmp_path: Path) -> None:
    plan = make_plan(3, [], [TRIANGLE, BROKEN, LONGER, LONGER])
    clock = SlowClock(START_NS + SECOND, SECOND + 300 * MS)
    replay = replay_of(plan, tmp_path, clock)
    replay.run(START_NS, threading.Event())
    assert [row["done_ns"] - row["planned_ns"] for row in instants(tmp_path)] == [0, 1_300 * MS, 300 * MS, 0]
    assert [row["links"] for row in instants(tmp_path)] == [6, 0, 6, 0]
    assert {row["k"] for row in changes(tmp_path)} == {0, 2}
    assert (replay.backend.ends == final_ends(plan)).all()


def test_a_link_that_drops_and_returns_while_late_keeps_its_history(tmp_path: Path) -> None:
    plan = make_plan(3, [], [TRIANGLE, LONGER, BROKEN, BROKEN])
    replay = replay_of(plan, tmp_path, SlowClock(START_NS + SECOND, SECOND))
    replay.run(START_NS, threading.Event())
    assert replay.backend.ends["planned_delay_ns"][2:4].tolist() == [8 * MS, 8 * MS]  # as of the instant overtaken


def test_stop_ends_the_wait(tmp_path: Path) -> None:
    plan = make_plan(3, [], [TRIANGLE, BROKEN])
    clock, stop = ManualClock(START_NS), threading.Event()
    stop.set()
    replay_of(plan, tmp_path, clock).run(START_NS, stop)
    assert clock.now_ns() == START_NS
    assert [row["k"] for row in instants(tmp_path)] == [0]


def test_a_stop_wakes_who_waits(tmp_path: Path) -> None:
    plan, stop = make_plan(3, [], [TRIANGLE, TRIANGLE], step_ns=1000 * SECOND), threading.Event()
    clock = MonotonicClock()
    replay = replay_of(plan, tmp_path, clock)
    waiting = threading.Thread(target=replay.run, args=(clock.now_ns(), stop))
    waiting.start()
    stop.set()
    waiting.join(60)
    assert not waiting.is_alive()


def test_a_route_without_a_link_is_withdrawn(tmp_path: Path) -> None:
    plan = make_plan(3, [], [TRIANGLE, {(0, 1): 5 * MS}])
    replay = replay_of(plan, tmp_path)
    assert replay.backend.routes[0, 2] == (1,)
    replay.run(START_NS, threading.Event())
    assert set(replay.backend.routes) == {(0, 1), (1, 0)}


def test_what_somebody_else_changed_is_found_and_named(tmp_path: Path) -> None:
    plan = make_plan(3, [], [TRIANGLE, BROKEN])
    replay = replay_of(plan, tmp_path)
    replay.backend.ends["delay_ns"][0] += 1_000
    replay.backend.routes[0, 1] = (1,)
    wrong = replay.verify_all()
    assert len(wrong) == 2
    assert wrong[0].startswith("p00s00 to-p00s01: the shaping is delay 5001 us, rate 1 Gbit/s")
    assert wrong[1] == (
        "p00s00: the IPv4 route to p00s01 is to-p00s02, but the plan says to-p00s01; leave tc and ip alone during a run"
    )


def test_mismatches_of_an_instant_are_counted(tmp_path: Path) -> None:
    plan = make_plan(3, [], [TRIANGLE, BROKEN])
    replay = replay_of(plan, tmp_path)
    replay.backend.ends["queue_byte"][0] = 7  # at node 0, of which another link changes
    replay.run(START_NS, threading.Event())
    assert [row["mismatches"] for row in instants(tmp_path)] == [0, 1]
    assert "behind a policer at 999999048 bit/s of 8 bytes" in replay.mismatches[0]


def test_a_start_that_does_not_read_back_is_an_error(tmp_path: Path) -> None:
    plan = make_plan(3, [], [TRIANGLE])

    class Deaf(FakeBackend):
        def change_ends(self, which: np.ndarray, states: np.ndarray) -> None:
            pass

    with pytest.raises(NetworkError, match="loss 1, behind .* but the plan says"):
        Replay(plan, make_routes(plan), Deaf(plan), ManualClock(), tmp_path, 0).apply_initial()


class DroppingBackend(FakeBackend):
    """One whose links drop two packets more each time that their ends are changed, and a queue one."""

    def change_ends(self, which: np.ndarray, states: np.ndarray) -> None:
        super().change_ends(which, states)
        self.dropped[which] += [2, 1]


def drops(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "drops.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("most", [128, 0])
def test_drops_are_told_by_link_and_by_the_state_in_which_they_came(
    tmp_path: Path, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up, then down, then up: what was counted at a change came before it; with too many changes nobody knows."""
    monkeypatch.setattr("isl_emu.network.replay.MOST_NODES_COUNTED", most)
    plan = make_plan(3, [], [TRIANGLE, BROKEN, TRIANGLE])
    replay = Replay(plan, make_routes(plan), DroppingBackend(plan), ManualClock(START_NS), tmp_path, 0)
    replay.apply_initial()
    replay.run(START_NS, threading.Event())
    replay.count_drops()
    causes = {"down": 2, "full": 4, "unclear": 0} if most else {"down": 0, "full": 2, "unclear": 4}
    ends = {(row["node"], row["peer"]): row for row in drops(tmp_path)}
    end = ends["p00s00", "p00s02"].pop("end")
    assert (replay.backend.wiring.node[end], replay.backend.wiring.peer[end]) == (0, 2)
    assert ends["p00s00", "p00s02"] == {"node": "p00s00", "peer": "p00s02", "fault": 0, "lost": 0, **causes}
    assert ("p00s00", "p00s01") not in ends


def test_what_only_a_fault_or_a_hand_keeps_down_drops_for_that(tmp_path: Path) -> None:
    """Two packets come to each end of a link at each change: cut at 1 s, out of the sky at 2 s, whole again at 3 s."""
    terms = np.array([(True, 0.0, 0.0, 0.0, 0, 1.0, 1.0)], TERMS)
    at = [np.array([k]) for k in (1, 3, 1, 3)]
    sky = make_plan(3, [], [TRIANGLE, TRIANGLE, BROKEN, TRIANGLE, TRIANGLE])
    (link,) = np.flatnonzero((sky.links.a == 0) & (sky.links.b == 2))
    storm = Faults(("storm",), ("cut",), terms, np.array([0]), np.array([FaultThing.LINK]), np.array([link]), *at)
    plan = with_faults(sky, storm)
    backend, clock = FakeBackend(plan), ManualClock(START_NS)
    replay = Replay(plan, make_routes(plan), backend, clock, tmp_path, 0)
    read = backend.counters

    def counters(nodes: Iterable[int]) -> np.ndarray:
        backend.dropped[2 * link] = [2 * ((clock.now_ns() - START_NS) // SECOND), 0]
        return read(nodes)

    backend.counters = counters  # type: ignore[method-assign]
    replay.apply_initial()
    replay.run(START_NS, threading.Event())
    replay.count_drops()
    (row,) = drops(tmp_path)
    assert (row["full"], row["fault"], row["down"], row["unclear"]) == (2 + 4, 2, 2, 0)


def test_what_is_cut_by_hand_drops_for_that(tmp_path: Path) -> None:
    plan = make_plan(3, [], [TRIANGLE] * 2)
    replay, told = replay_of(plan, tmp_path), []

    class Cutting(ManualClock):
        def wait_until_ns(self, deadline_ns: int, stop: threading.Event) -> bool:
            if deadline_ns == START_NS + 2 * SECOND:
                told.append(replay.override(lambda others: (*others, Override((0,), cut=True))))
                replay.backend.dropped[0] += [3, 0]
            return super().wait_until_ns(deadline_ns, stop)

    replay.clock = Cutting(START_NS)
    replay.run(START_NS, threading.Event())
    replay.count_drops()
    (row,) = drops(tmp_path)
    assert told and (row["fault"], row["down"], row["full"]) == (3, 0, 0)


def test_nodes_that_are_due_for_a_sample_do_not_make_the_drops_of_others_unclear(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of eight nodes four are due at each instant, and two others change, which is as many as may."""
    monkeypatch.setattr("isl_emu.network.replay.MOST_NODES_COUNTED", 2)
    whole = dict.fromkeys([(n, n + 1) for n in range(7)], MS)
    plan = make_plan(8, [], [whole, {link: delay for link, delay in whole.items() if link != (6, 7)}, whole])
    settings = {"counters_interval_ns": 2 * plan.grid.step_ns}
    replay = Replay(plan, make_routes(plan), DroppingBackend(plan), ManualClock(START_NS), tmp_path, 0, **settings)
    replay.apply_initial()
    replay.run(START_NS, threading.Event())
    replay.count_drops()
    assert [(row["node"], row["unclear"]) for row in drops(tmp_path)] == [("p00s06", 0), ("p00s07", 0)]


def test_drops_of_a_lossy_link_are_its_loss_and_those_before_it_are_its_queue(tmp_path: Path) -> None:
    plan = make_plan(3, [], [TRIANGLE])
    replay = replay_of(replace(plan, row_loss_ratio=np.full(3, 0.1)), tmp_path)
    replay.run(START_NS, threading.Event())
    replay.backend.dropped[0] = [5, 3]
    replay.count_drops()
    (row,) = drops(tmp_path)
    assert (row["lost"], row["full"], row["down"]) == (5, 3, 0)


@pytest.mark.parametrize(("interval_ns", "times"), [(SECOND, [1, 2, 3]), (2 * SECOND, [2, 3]), (10**15, [3])])
def test_counters_are_sampled_at_their_interval_and_at_the_end(
    tmp_path: Path, interval_ns: int, times: list[int]
) -> None:
    """Drops come with each change of the ends, so every sample differs from the one before."""
    plan = make_plan(3, [], [TRIANGLE, BROKEN, TRIANGLE])
    backend = DroppingBackend(plan)
    clock = ManualClock(START_NS)
    replay = Replay(plan, make_routes(plan), backend, clock, tmp_path, 0, counters_interval_ns=interval_ns)
    replay.apply_initial()
    replay.run(START_NS, threading.Event())
    backend.dropped[0] += [0, 1]
    replay.count_drops()
    write_links(tmp_path / "links.arrow", tmp_path / "links.parquet", plan)
    rows = pq.read_table(tmp_path / "links.parquet").to_pylist()
    assert sorted({row["t_ns"] // SECOND for row in rows}) == times
    last = {(row["node"], row["peer"]): row for row in rows}
    for told in drops(tmp_path):
        row = last[told["node"], told["peer"]]
        assert [row[f"dropped_{cause}"] for cause in CAUSES] == [told[cause] for cause in CAUSES]


class DisturbedBackend(FakeBackend):
    """One in which somebody takes an interface of p00s01 down before the second instant."""

    def __init__(self, plan: LinkPlan):
        super().__init__(plan)
        self.down, self.heard = [True], [Disturbance(1, START_NS + SECOND // 2, frozenset({"interfaces"}), True)]

    @property
    def disturbed(self) -> bool:
        return bool(self.heard)

    def disturbances(self) -> list[Disturbance]:
        heard, self.heard = self.heard, []
        return heard

    def interfaces_down(self, node: int) -> list[str]:
        return ["to-p00s02"] if self.down and node == 1 else []

    def change_ends(self, which: np.ndarray, states: np.ndarray) -> None:
        if self.down and self.log:  # once the first instant is made
            raise NetworkError("p00s01: the shaping of to-p00s02 cannot be set")
        super().change_ends(which, states)

    def restore(self, node: int, ends: np.ndarray, routes: np.ndarray) -> list[int]:
        self.down.clear()
        return super().restore(node, ends, routes)


def test_what_somebody_changed_is_put_right_before_the_next_change_and_written_down(tmp_path: Path) -> None:
    plan = make_plan(3, [], [TRIANGLE, LONGER])
    backend = DisturbedBackend(plan)
    backend.down.clear()
    replay = Replay(plan, make_routes(plan), backend, ManualClock(START_NS), tmp_path, 0)
    replay.apply_initial()
    backend.down.append(True)
    replay.run(START_NS, threading.Event())
    assert replay.mismatches == replay.verify_all() == []
    (told,) = [json.loads(line) for line in (tmp_path / "incidents.jsonl").read_text().splitlines()]
    assert told == {
        "t_ns": SECOND // 2, "t_end_ns": SECOND, "kind": "intervention", "node": "p00s01", "what": "network",
        "cause": "to-p00s02 is down",
    }  # fmt: skip


class MeddlingClock(ManualClock):
    """Does something when somebody waits for a certain time, just before it."""

    def __init__(self, at_ns: int):
        super().__init__(START_NS)
        self.at_ns, self.meddle = at_ns, lambda: None

    def sleep_until_ns(self, deadline_ns: int) -> None:
        if deadline_ns == self.at_ns:
            self.advance_ns(deadline_ns - self.now_ns() - SECOND // 2)
            self.meddle()
        super().sleep_until_ns(deadline_ns)


def test_what_is_overridden_stays_while_the_plan_moves_on_and_is_restored_to_where_it_then_is(tmp_path: Path) -> None:
    plan = make_plan(3, [], [TRIANGLE, LONGER, TRIANGLE, LONGER])
    clock = MeddlingClock(START_NS + SECOND)
    replay = replay_of(plan, tmp_path, clock, bias_ns=1000)
    worse = Override((0,), loss_ratio=0.25, rate_factor=0.5, delay_factor=2.0)
    cut, held = Override((1,), cut=True), Override((2,), delay_ns=20 * MS, rate_bit_s=40_000_000)
    seen, begun = list[np.ndarray](), list[int]()

    def restore() -> None:
        seen.append(replay.backend.ends.copy())
        begun.append(replay.override(lambda _: ()))

    def lay() -> None:
        begun.append(replay.override(lambda others: (*others, worse, cut, held)))
        seen.append(replay.backend.ends.copy())
        clock.at_ns, clock.meddle = START_NS + 2 * SECOND, restore

    clock.meddle = lay
    replay.run(START_NS, threading.Event())
    assert begun == [SECOND // 2, 3 * SECOND // 2]
    for ends, delay_ns in zip(seen, (5 * MS, 6 * MS), strict=True):
        assert (
            ends["delay_ns"].tolist()
            == [2 * delay_ns - 1000] * 2 + [delay_ns + 2 * MS - 1000] * 2 + [20 * MS - 1000] * 2
        )
        assert ends["rate_bit_s"].tolist() == [500_000_000] * 2 + [1_000_000_000] * 2 + [40_000_000] * 2
        assert ends["queue_byte"].tolist() == [3_125_000] * 2 + [6_250_000] * 2 + [250_000] * 2
        assert ends["up"].tolist() == [True, True, False, False, True, True]
        assert ends["loss_ratio"].tolist() == [0.25, 0.25, 0.0, 0.0, 0.0, 0.0]
    assert (replay.backend.ends == final_ends(plan, 1000)).all()
    assert replay.verify_all() == replay.mismatches == []
    by_hand = [row for row in changes(tmp_path) if row["t_planned_ns"] % SECOND]
    assert [(row["t_planned_ns"], row["t_applied_ns"]) for row in by_hand] == [(t, t) for t in begun for _ in range(6)]
    with pytest.raises(NetworkError, match="does not run"):
        replay.override(lambda _: ())


def test_a_link_that_is_down_by_the_plan_stays_down(tmp_path: Path) -> None:
    plan = make_plan(3, [], [BROKEN, TRIANGLE])
    clock = MeddlingClock(START_NS + SECOND)
    replay = replay_of(plan, tmp_path, clock)
    up: list[bool] = []

    def lay() -> None:
        replay.override(lambda _: (Override((1,), delay_ns=MS),))
        up.append(bool(replay.backend.ends["up"][2]))

    clock.meddle = lay
    replay.run(START_NS, threading.Event())
    assert up == [False]
    assert replay.backend.ends["up"].all() and replay.backend.ends["delay_ns"][2:4].tolist() == [MS, MS]
