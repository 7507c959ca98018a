"""netem as it is used here, proven on the kernel at hand: order, rate, loss, and replacement without a gap."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from isl_emu.network.net import IslNet
from tests.kernel.transfers import bulk_transfer
from tests.nets import live_net, ping_lost, udp_socket
from tests.plans import MS, make_plan, ring_edges

pytestmark = [pytest.mark.kernel, pytest.mark.any_clock, pytest.mark.usefixtures("netem")]
PORT = 9000
PAIR = {(0, 1): 50 * MS}


def received_order(net: IslNet, change: str, packets: int = 300, spacing_s: float = 0.001) -> list[int]:
    """Sequence numbers as they arrive at p00s01 while p00s00 sends, with a tc command run in between."""
    sender, receiver = udp_socket(net, "p00s00"), udp_socket(net, "p00s01", PORT)
    receiver.settimeout(1.0)
    net.get("p00s00").cmd("true")
    for sequence in range(packets):
        if sequence == packets // 2:
            net.get("p00s00").sendCmd(change)
        sender.sendto(sequence.to_bytes(4, "big"), (net.get("p00s01").address, PORT))
        time.sleep(spacing_s)
    net.get("p00s00").waitOutput()
    arrived = []
    try:
        while True:
            arrived.append(int.from_bytes(receiver.recv(16), "big"))
    except TimeoutError:
        sender.close()
        receiver.close()
        return arrived


def overtakings(order: list[int]) -> int:
    return int((np.diff(order) < 0).sum())


def test_a_falling_delay_reorders_nothing_because_there_is_a_rate(tmp_path: Path) -> None:
    with live_net(make_plan(2, [], [PAIR], rate_bit_s=100_000_000), tmp_path) as (net, _):
        order = received_order(net, "tc qdisc change dev to-p00s01 root netem delay 20ms rate 100mbit limit 1000")
    assert order == list(range(300))


def test_without_a_rate_it_would(tmp_path: Path) -> None:
    with live_net(make_plan(2, [], [PAIR], rate_bit_s=100_000_000), tmp_path) as (net, _):
        net.get("p00s00").cmd("tc qdisc replace dev to-p00s01 root handle 2: netem delay 50ms limit 1000")
        order = received_order(net, "tc qdisc change dev to-p00s01 root handle 2: netem delay 20ms limit 1000")
    assert sorted(order) == list(range(300))
    assert overtakings(order) > 0


def test_a_change_of_ours_keeps_order_and_queue(tmp_path: Path) -> None:
    plan = make_plan(2, [], [PAIR, {(0, 1): 20 * MS}], rate_bit_s=100_000_000, step_ns=200 * MS)
    with live_net(plan, tmp_path) as (net, replay):
        player = threading.Thread(target=replay.run, args=(time.monotonic_ns(), threading.Event()))
        player.start()
        order = received_order(net, "true", packets=400)
        player.join()
    assert order == list(range(400))


def test_a_planned_change_of_routes_loses_nothing(tmp_path: Path) -> None:
    one_way, other_way = ring_edges(4, 5 * MS), ring_edges(4, 5 * MS)
    one_way[0, 3], other_way[0, 1] = 50 * MS, 50 * MS
    plan = make_plan(4, [], [one_way, other_way, one_way, other_way], step_ns=300 * MS)
    with live_net(plan, tmp_path) as (net, replay):
        node = net.get("p00s00")
        node.sendCmd("ping -q -c 300 -i 0.004 -W 2 p00s02")
        replay.run(time.monotonic_ns(), threading.Event())
        assert ping_lost(node.waitOutput()) == 0
        assert replay.mismatches == []


def test_a_link_that_is_down_loses_everything_but_what_is_on_its_way(tmp_path: Path) -> None:
    plan = make_plan(2, [], [{(0, 1): 300 * MS}, {}], step_ns=100 * MS)
    with live_net(plan, tmp_path) as (net, replay):
        sender, receiver = udp_socket(net, "p00s00"), udp_socket(net, "p00s01", PORT)
        receiver.settimeout(1.0)
        target = (net.get("p00s01").address, PORT)
        net.get("p00s00").cmd("true")
        sender.sendto(b"before", target)
        replay.run(time.monotonic_ns(), threading.Event())
        with pytest.raises(OSError, match="unreachable"):
            sender.sendto(b"no route", target)
        net.get("p00s00").cmd(f"ip route add {target[0]}/32 via {target[0]} dev to-p00s01 onlink")
        dropped = net.backend.dropped_packets()
        sender.sendto(b"no light", target)
        assert receiver.recv(16) == b"before"
        with pytest.raises(TimeoutError):
            receiver.recv(16)
        of_the_kernel = 2  # it tells its neighbours, twice for each interface, which multicast it listens to
        assert 1 <= net.backend.dropped_packets() - dropped <= 1 + 2 * of_the_kernel


@pytest.mark.parametrize("rate_bit_s", [10_000_000, 50_000_000])
def test_a_bulk_transfer_gets_the_rate(tmp_path: Path, rate_bit_s: int) -> None:
    """TCP payload is 1448 of the 1514 bytes that netem counts (20 IPv4, 32 TCP with time stamps, 14 Ethernet)."""
    plan = make_plan(3, [], [{(0, 1): 2 * MS, (1, 2): 2 * MS}], rate_bit_s=rate_bit_s)
    with live_net(plan, tmp_path) as (net, _):
        goodput = bulk_transfer(net, "p00s00", "p00s02", rate_bit_s // 8)
    ceiling_bit_s = rate_bit_s * 1448 / 1514
    a_tenth = 0.1
    assert goodput.whole_bit_s <= 1.005 * ceiling_bit_s
    assert goodput.best_bit_s >= (1 - a_tenth) * ceiling_bit_s


def test_a_planned_loss_is_lost_in_either_direction(tmp_path: Path) -> None:
    """A quarter lost each way: of n pings (1 - 1/4)^2 come back, within five standard deviations."""
    plan, count = make_plan(2, [], [{(0, 1): MS}], rate_bit_s=100_000_000), 400
    plan = replace(plan, row_loss_ratio=np.full(1, 0.25))
    with live_net(plan, tmp_path) as (net, replay):
        lost = ping_lost(net.get("p00s00").cmd(f"ping -q -i 0.005 -W 1 -c {count} {net.get('p00s01').address}"))
        assert replay.verify_all() == []
    answered = 0.75**2
    assert abs((count - lost) / count - answered) < 5 * (answered * (1 - answered) / count) ** 0.5
