"""Probes on the kernel: delays that differ by direction are measured as they are, whenever the prober gets to run."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest

from isl_emu.parts.probes.prober import Prober, open_probes, open_receivers
from isl_emu.runs.clock import RunTimes
from isl_emu.runs.journal import Journal, read_journal
from isl_emu.timebase import MonotonicClock
from tests.nets import endpoints_of, live_net
from tests.plans import MS, make_plan

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("netem")]

THERE_NS, BACK_NS = 20 * MS, 60 * MS
PAIRS = [("p00s00", "p00s02")]
NODES = sorted({name for pair in PAIRS for name in pair})


class LateClock(MonotonicClock):
    """Whoever waits by it is woken up to 30 ms late."""

    def timeout_s(self, deadline_ns: int) -> float:
        return super().timeout_s(deadline_ns) + 0.03


def test_a_node_that_has_no_route_is_named(tmp_path: Path) -> None:
    """Of a probe that a node refuses, and of one that cannot even leave; those on the way back arrive.

    A kernel tells a sender of five at once and then of one a second (net/ipv4/route.c, ip_error).
    """
    plan = make_plan(3, [], [{(0, 1): 5 * MS, (1, 2): 5 * MS}])
    for node, why in ((1, "no route"), (0, "Network is unreachable")):
        with live_net(plan, tmp_path) as (net, _), Journal(tmp_path / f"probes-{node}.jsonl") as journal:
            net.get(f"p00s0{node}").cmd("ip route del 10.0.0.3")
            endpoints = endpoints_of(net)
            names = {one.address: name for name, one in endpoints.items()}
            probes, receivers = open_probes(PAIRS, endpoints, 50 * MS, 50 * MS), open_receivers(NODES, endpoints)
            now_ns = time.monotonic_ns()
            times = RunTimes(now_ns, now_ns + 500 * MS)
            Prober(journal, probes, receivers, times, 50 * MS, 50 * MS, names=names).run()
        records = read_journal(tmp_path / f"probes-{node}.jsonl").records
        assert len(records) >= 10
        told = [one["lost_by"] for one in records if one["a"] == "p00s00"]
        assert told[0] == f"{why} at p00s0{node}" and set(told) <= {told[0], None}, told
        assert {one["lost_by"] for one in records if one["a"] == "p00s02"} == {None}
        assert all(one["delay_ns"] for one in records if one["a"] == "p00s02")


def test_each_direction_is_measured_by_itself(tmp_path: Path) -> None:
    plan = make_plan(3, [], [{(0, 1): 5 * MS, (1, 2): 5 * MS}])
    with live_net(plan, tmp_path) as (net, replay):
        ends = replay._ends.copy()
        ends["delay_ns"][net.backend.wiring.node == 1] = (BACK_NS - 5 * MS, THERE_NS - 5 * MS)  # towards 0, towards 2
        net.backend.change_ends(np.arange(len(ends)), ends)
        probes, receivers = (
            open_probes(PAIRS, endpoints_of(net), 50 * MS, 50 * MS),
            open_receivers(NODES, endpoints_of(net)),
        )
        with Journal(tmp_path / "probes.jsonl") as journal:
            now_ns = time.monotonic_ns()
            times = RunTimes(now_ns, now_ns + 1000 * MS)
            Prober(journal, probes, receivers, times, 50 * MS, 50 * MS, LateClock()).run()
    records = read_journal(tmp_path / "probes.jsonl").records
    found = {a: [record for record in records if record["a"] == a] for a in ("p00s00", "p00s02")}
    for a, planned_ns in (("p00s00", THERE_NS), ("p00s02", BACK_NS)):
        delays_ns = [record["delay_ns"] for record in found[a] if record["delay_ns"] is not None]
        assert len(delays_ns) >= 8, json.dumps(records)
        assert 0 <= min(delays_ns) - planned_ns < 2 * MS
        assert {record["hops_seen"] for record in found[a]} <= {2, None}
