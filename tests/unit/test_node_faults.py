"""What faults do beside links: when, in what order, what of it is told, and what they stand in the way of."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import pytest

from isl_emu.errors import WorkloadError
from isl_emu.linkplan.fault_events import TERMS, Faults, FaultThing
from isl_emu.linkplan.faults import with_faults
from isl_emu.linkplan.plan import LinkPlan
from isl_emu.network.replay import Replay
from isl_emu.parts.faults.events import Moment, moments
from isl_emu.parts.faults.results import connected
from isl_emu.parts.residents import flip_bits
from isl_emu.routing.paths import PathFinder
from isl_emu.runs.process import Watch
from isl_emu.tables.planned_faults import PlannedFaults
from isl_emu.tables.planned_paths import PlannedPaths
from isl_emu.timebase import ManualClock
from tests.fake_network import FakeBackend
from tests.plans import MS, SECOND, make_plan, make_routes

TRIANGLE = {(0, 1): 5 * MS, (1, 2): 5 * MS, (0, 2): 7 * MS}
NOTHING = (False, 0.0, 0.0, 0.0, 0, 1.0, 1.0)
CUT = (True, *NOTHING[1:])


def faulty(*events: tuple[str, FaultThing, int, int, int], instants: int = 6) -> LinkPlan:
    """A plan with faults, each (effect, thing, target, k_from, k_until), known at once."""
    effect, thing, target, k_from, k_until = zip(*events, strict=True)
    k = np.array([k_from, k_until])
    terms = np.array([CUT if one in ("cut", "power-off") else NOTHING for one in effect], TERMS)
    names = tuple(f"f{number}" for number in range(len(events)))
    columns = np.arange(len(events), dtype=np.int32), np.array(thing, np.uint8), np.array(target, np.int32)
    return with_faults(make_plan(3, [], [TRIANGLE] * instants), Faults(names, effect, terms, *columns, *k, *k))


def test_what_is_due_is_done_in_order_and_what_is_without_power_says_nothing_more() -> None:
    plan = faulty(
        ("kill", FaultThing.SERVER, 1, 1, 3),
        ("power-off", FaultThing.NODE, 2, 3, 6),
        ("flip-bits", FaultThing.SERVER, 0, 2, 3),
        ("cut", FaultThing.LINK, 0, 1, 2),
    )
    due = list(moments(plan.faults, SECOND, 6 * SECOND))
    assert due == [
        Moment(SECOND, 0, True),
        Moment(2 * SECOND, 2, True),
        Moment(3 * SECOND, 0, False),
        Moment(3 * SECOND + 1000, 1, True),
    ]


def test_packets_of_a_fault_are_those_that_its_links_drop_while_it_holds(tmp_path: Path) -> None:
    plan = faulty(
        ("cut", FaultThing.LINK, 2, 2, 4), ("kill", FaultThing.SERVER, 1, 1, 3), ("cut", FaultThing.NODE, 0, 4, 6)
    )
    backend = FakeBackend(plan)
    clock = ManualClock()
    replay = Replay(plan, make_routes(plan), backend, clock, tmp_path, 0)
    replay.apply_initial()

    class Counting(threading.Event):
        """Drops one packet on each link end whenever the replay waits."""

        def is_set(self) -> bool:
            backend.dropped[:, 0] += 1
            return False

    replay.run(0, Counting())
    waits = int(backend.dropped[0, 0])
    replay.count_drops()
    told = {row["event"]: row["packets"] for row in map(json.loads, (tmp_path / "fault_drops.jsonl").open())}
    per_instant = waits / 6
    assert told == {0: 2 * 2 * per_instant, 2: 4 * 2 * per_instant}


def test_what_stands_in_the_way_is_the_server_its_power_or_a_link_on_the_way() -> None:
    plan = faulty(
        ("kill", FaultThing.SERVER, 1, 1, 3),
        ("degrade", FaultThing.LINK, 0, 1, 3),
        ("power-off", FaultThing.NODE, 2, 4, 5),
    )
    faults = PlannedFaults(plan, PlannedPaths(plan, PathFinder(plan, make_routes(plan)), {}))

    def found(satellite: str | None, from_s: float, until_s: float) -> list[int]:
        return list(faults.in_the_way("p00s00", satellite, int(from_s * SECOND), int(until_s * SECOND)))

    assert found("p00s01", 1.5, 1.6) == [0, 1]
    assert found("p00s02", 1.5, 1.6) == []
    assert found("p00s02", 4.2, 4.3) == [2]
    assert found("p00s02", 3.2, 4.3) == [2]
    assert found("p00s01", 3.2, 3.9) == []
    assert found(None, 4.2, 4.3) == [2]  # there was none, for which it may be why
    assert [faults.name(event) for event in (0, 2)] == ["f0", "f2"]


def test_parts_of_a_network_are_told_apart() -> None:
    plan = make_plan(4, [], [{(0, 1): MS, (2, 3): MS}, {(0, 1): MS, (1, 2): MS, (2, 3): MS}])
    apart, whole = connected(plan, 0), connected(plan, 1)
    assert apart[0] == apart[1] != apart[2] == apart[3]
    assert len(set(whole.tolist())) == 1


def test_so_many_different_bits_are_flipped_in_the_place_and_the_same_ones_by_the_same_seed(tmp_path: Path) -> None:
    path, before = tmp_path / "weights", bytes(range(200))
    told = []
    for _ in range(2):
        path.write_bytes(before)
        with path.open("r+b", buffering=0) as file:
            told.append(flip_bits(file, 100, 200, 40, np.random.default_rng(5)))
    after = path.read_bytes()
    assert after[:100] == before[:100]
    assert sum((a ^ b).bit_count() for a, b in zip(before, after, strict=True)) == 40
    assert told[0] == told[1] and told[0].endswith("and 36 more")
    with path.open("r+b", buffering=0) as file, pytest.raises(WorkloadError, match="801 bits .* but it has 800"):
        flip_bits(file, 100, 200, 801, np.random.default_rng(5))


def test_what_dies_by_order_is_not_told_and_its_successor_is(tmp_path: Path) -> None:
    watch = Watch(tmp_path, lambda: 0)
    watch.declare([4_000_000], "p00s00", oom_kills=1)
    assert watch.is_declared(4_000_000) and not watch.is_declared(4_000_001)
    watch.count_killed("p00s00", 1)
    watch.count_killed("p00s01", 1)
    watch.close()
    told = [json.loads(line)["node"] for line in (tmp_path / "incidents.jsonl").read_text().splitlines()]
    assert told == ["p00s01"]
