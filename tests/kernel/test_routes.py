"""Routes over several links, disjoint paths, and routes that change under way, on the kernel at hand."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from isl_emu.linkplan.plan import LinkPlan
from isl_emu.network.net import IslNet
from isl_emu.network.replay import Replay
from isl_emu.routing.forwarding import plan_routes
from tests.nets import live_net, need_kernel, ping_lost, ping_times_ms, udp_socket
from tests.plans import MS, make_plan
from tests.unit.test_multipath import ecmp, routing

pytestmark = pytest.mark.kernel
PORT = 9000
FLOWS = 32  # that all of them take the same of two ways happens once in 2^31 times
SQUARE = {(0, 1): 5 * MS, (1, 3): 5 * MS, (0, 2): 8 * MS, (2, 3): 8 * MS}


@pytest.fixture(autouse=True)
def _kernel() -> None:
    need_kernel()


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
    """Which of the two ways all packets of a new flow from p00s00 to p00s03 take."""
    ways, packets = ["to-p00s01", "to-p00s02"], 5
    before = sent_packets(net, "p00s00", ways)
    with closing(udp_socket(net, "p00s00")) as sender:
        for _ in range(packets):
            sender.sendto(b"flow", (net.get("p00s03").address, PORT))
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
