"""Routes over several links, disjoint paths, and routes that change under way, on the kernel at hand."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from isl_emu.linkplan.plan import LinkPlan
from isl_emu.network.kernel import KernelBackend
from isl_emu.network.net import IslNet
from isl_emu.network.replay import Replay
from isl_emu.routing.forwarding import plan_routes
from isl_emu.timebase import MonotonicClock
from tests.benchmarks.bench_replay import planned, scenario_text
from tests.nets import live_net, ping_lost, ping_times_ms, run_directory, udp_socket
from tests.plans import MS, SECOND, make_plan
from tests.unit.test_multipath import ecmp, routing

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("netem")]
PORT = 9000
PATIENCE_S = 10.0
FLOWS = 32  # that all of them take the same of two ways happens once in 2^31 times
SQUARE = {(0, 1): 5 * MS, (1, 3): 5 * MS, (0, 2): 8 * MS, (2, 3): 8 * MS}


def sent_packets(net: IslNet, node: str, interfaces: Sequence[str]) -> list[int]:
    """How many packets each of some interfaces has sent."""
    shown = net.get(node).cmd("cat /proc/net/dev")
    return [int(re.search(rf"{name}:(?:\s+\d+){{9}}\s+(\d+)", shown).group(1)) for name in interfaces]


def test_flows_are_spread_over_equal_next_hops_and_each_stays_on_its_own(tmp_path: Path) -> None:
    plan = make_plan(4, [], [SQUARE])
    with live_net(plan, tmp_path, routes=plan_routes(plan, ecmp(tolerance="10 ms"))) as (net, replay):
        assert replay.verify_all() == []
        taken = [way_of_a_flow(net) for _ in range(FLOWS)]
    assert set(taken) == {0, 1}


def way_of_a_flow(net: IslNet) -> int:
    """Which of the two ways all packets of a new flow from p00s00 to p00s03 take.

    An interface counts a packet when its netem lets it go, so all are awaited.
    """
    ways, packets = ["to-p00s01", "to-p00s02"], 5
    before = sent_packets(net, "p00s00", ways)
    with closing(udp_socket(net, "p00s00")) as sender:
        for _ in range(packets):
            sender.sendto(b"flow", (net.get("p00s03").address, PORT))
    give_up_s = time.monotonic() + PATIENCE_S
    after = before
    while sum(after) - sum(before) < packets and time.monotonic() < give_up_s:
        after = sent_packets(net, "p00s00", ways)
    used = [way for way in (0, 1) if after[way] - before[way] >= packets]
    assert len(used) == 1, (before, after)
    return used[0]


def test_groups_change_with_the_sky_in_both_families(tmp_path: Path) -> None:
    without = {edge: delay_ns for edge, delay_ns in SQUARE.items() if edge != (0, 2)}
    plan = make_plan(4, [], [SQUARE, without, SQUARE, {}, SQUARE], step_ns=100 * MS)
    with live_net(plan, tmp_path, routes=plan_routes(plan, ecmp(tolerance="10 ms"))) as (net, replay):
        replay.run(time.monotonic_ns(), threading.Event())
        assert replay.mismatches == replay.verify_all() == []
        net.get("p00s00").cmd("ip route replace 10.0.0.4/32 via 10.0.0.2 dev to-p00s01 onlink proto 151")
        (wrong,) = replay.verify_all()
    assert "p00s00: the IPv4 route to p00s03 is to-p00s01, but the plan says to-p00s01 and to-p00s02" in wrong


@contextmanager
def disjoint_net(plan: LinkPlan, folder: Path) -> Iterator[tuple[IslNet, Replay]]:
    routes = plan_routes(plan, routing(disjoint={"pairs": [["p00s00", "p00s03"]]}))
    with live_net(plan, folder, routes=routes) as made:
        yield made


def test_each_disjoint_path_is_reached_by_its_address_both_ways(tmp_path: Path) -> None:
    """10 ms each way over node 1, 16 ms over node 2; an answer that came by the other path would take 26 ms in all."""
    with disjoint_net(make_plan(4, [], [SQUARE]), tmp_path) as (net, replay):
        assert replay.verify_all() == []
        for path, middle, round_trip_ms in ((1, 2, 20), (2, 3, 32)):
            for source, target in (("p00s00", "p00s03"), ("p00s03", "p00s00")):
                name = f"{target}.from-{source}.{path}"
                hops = net.get(source).cmd(f"traceroute -n -q 1 {name}").splitlines()[1:]
                assert hops[0].split()[1] == f"10.0.0.{middle}", hops
                assert len(hops) == 2
                for version in ("-4", "-6"):
                    suffix = ".ip6" if version == "-6" else ""
                    times = ping_times_ms(net.get(source).cmd(f"ping {version} -c 4 -i 0.05 {name}{suffix}"))
                    assert round_trip_ms - 0.1 <= min(times) < round_trip_ms + 5


def test_a_disjoint_path_that_changes_loses_nothing(tmp_path: Path) -> None:
    """The second path goes over node 2, then over node 4, and back."""
    over_four = {**{edge: SQUARE[edge] for edge in ((0, 1), (1, 3))}, (0, 4): 8 * MS, (3, 4): 8 * MS}
    both = {**SQUARE, (0, 4): 9 * MS, (3, 4): 9 * MS}
    instants = [{**SQUARE, (0, 4): 9 * MS, (3, 4): 9 * MS}, {**over_four, (0, 2): 9 * MS, (2, 3): 9 * MS}, both]
    with disjoint_net(make_plan(5, [], instants * 2, step_ns=300 * MS), tmp_path) as (net, replay):
        node = net.get("p00s00")
        node.sendCmd("ping -q -c 350 -i 0.005 -W 2 p00s03.from-p00s00.2")
        replay.run(time.monotonic_ns(), threading.Event())
        assert ping_lost(node.waitOutput()) == 0
        assert replay.mismatches == []


def test_ten_updates_a_second_do_not_fall_behind(tmp_path: Path) -> None:
    """88 satellites and 20 stations for 4 s: all instants read back as planned, and the last are not late."""
    plan, routes, _ = planned(scenario_text(planes=4, seconds=4, stations=20))
    with run_directory() as run:
        backend = KernelBackend(plan, run.run_id)
        try:
            replay = Replay(plan, routes, backend, MonotonicClock(), tmp_path, bias_ns=50_000)
            replay.apply_initial()
            replay.run(time.monotonic_ns() + SECOND, threading.Event())
            assert replay.mismatches == replay.verify_all() == []
        finally:
            backend.close()
    rows = [json.loads(line) for line in (tmp_path / "instants.jsonl").read_text().splitlines()]
    assert [row["k"] for row in rows] == list(range(40))
    late_ns = [row["done_ns"] - row["planned_ns"] for row in rows[-10:]]
    assert min(late_ns) < plan.grid.step_ns


THOUSAND_A_SECOND, FOR_S = 1000, 3


def test_a_thousand_packets_a_second_cross_planned_handovers_and_none_is_lost(tmp_path: Path) -> None:
    """Station 6 goes from satellite 0 to 1, later a laser of the path goes and another comes, and both come back.

    Nothing overlaps: at one instant the old link is gone and the new one there. Yet what is in flight arrives, and what
    is on its way to a place that has lost its link goes on from there.
    """
    ring, station_7 = {edge: 5 * MS for edge in ((0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (0, 5))}, {(3, 7): 4 * MS}
    first = {**ring, **station_7, (0, 6): 4 * MS}
    handed_over = {**ring, **station_7, (1, 6): 4 * MS}
    without_a_laser = {edge: delay_ns for edge, delay_ns in handed_over.items() if edge != (1, 2)}
    without_a_laser[1, 4] = 6 * MS
    instants = [first, handed_over, without_a_laser, handed_over, first]
    plan = make_plan(6, ["gs-a", "gs-b"], instants, rate_bit_s=100_000_000, step_ns=500 * MS)
    with live_net(plan, tmp_path) as (net, replay), closing(udp_socket(net, "gs-b", PORT)) as receiver:
        command = ["/usr/bin/python3", "-S", "-c", _STEADILY, net.get("gs-b").address, str(PORT), str(FOR_S)]
        sender = net.get("gs-a").popen(command, text=True)
        assert sender.stdout.readline() == "begun\n"
        replay.run(time.monotonic_ns(), threading.Event())
        assert int(sender.communicate(timeout=60)[0]) == FOR_S * THOUSAND_A_SECOND
        arrived = numbers_received(receiver)
        assert replay.mismatches == []
    assert sorted(arrived) == list(range(FOR_S * THOUSAND_A_SECOND))


def numbers_received(receiver: socket.socket) -> list[int]:
    """The numbers of all packets that wait at a socket; none is on its way any more after a second."""
    receiver.settimeout(1.0)
    numbers = []
    try:
        while True:
            numbers.append(int.from_bytes(receiver.recv(64), "big"))
    except TimeoutError:
        return numbers


_STEADILY = """
import socket, sys, time
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
target, count = (sys.argv[1], int(sys.argv[2])), 1000 * int(sys.argv[3])
print("begun", flush=True)
begun = time.monotonic()
for number in range(count):
    time.sleep(max(begun + number / 1000 - time.monotonic(), 0))
    sender.sendto(number.to_bytes(4, "big"), target)
print(count)
"""
