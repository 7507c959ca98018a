"""The queues of links on the kernel at hand: they cover the flight, are as long as configured, or short if managed."""

from __future__ import annotations

import socket
import statistics
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from isl_emu.linkplan.plan import LinkPlan, QueueKind
from isl_emu.network.net import IslNet
from isl_emu.network.probing import missing_queues
from tests.kernel.transfers import Goodput, bulk_transfer, message_times_s
from tests.nets import live_net, ping_times_ms, udp_socket
from tests.plans import MS, make_plan

pytestmark = [pytest.mark.kernel, pytest.mark.any_clock, pytest.mark.usefixtures("netem")]
PORT = 9000
FRAME_BYTE = 1514  # an MTU of 1500 and Ethernet's header
GBIT = 1_000_000_000
UDP_PAYLOAD_BYTE = FRAME_BYTE - 14 - 20 - 8  # Ethernet, IPv4 and UDP headers
TCP_PAYLOAD_RATIO = 1448 / FRAME_BYTE  # headers of Ethernet, IPv4, TCP with time stamps
SMALL_PING_MS = 10  # of the round trips without a queue, with room for a busy machine
ACTIVE = [QueueKind.CODEL, QueueKind.FQ_CODEL, QueueKind.CAKE]


def need_queue(kind: QueueKind) -> None:
    if missing := missing_queues([kind]):
        pytest.skip("; ".join(missing))


def bottleneck(rate_bit_s: int, delay_ns: int, queue_ns: int, aqm: QueueKind = QueueKind.NONE) -> LinkPlan:
    """Three nodes in a row; the second link is ten times slower than the first."""
    plan = make_plan(3, [], [{(0, 1): MS, (1, 2): delay_ns}], queue_ns=queue_ns, aqm=aqm)
    rates = np.array([10 * rate_bit_s, rate_bit_s])
    return replace(plan, row_rate_ab_bit_s=rates, row_rate_ba_bit_s=rates.copy())


def large_windows(net: IslNet) -> None:
    """Room for what is in flight on the fastest link of these tests."""
    for node in net.hosts:
        node.cmd('sysctl -qw net.ipv4.tcp_rmem="4096 131072 67108864" net.ipv4.tcp_wmem="4096 131072 67108864"')


def test_a_fast_long_link_is_filled_by_one_flow_and_the_default_limit_would_not(tmp_path: Path) -> None:
    """1 Gbit/s x 30 ms is 2,478 frames; netem's own limit of 1,000 lets 404 Mbit/s of them through at the most."""
    plan = make_plan(2, [], [{(0, 1): 30 * MS}], rate_bit_s=GBIT, queue_ns=20 * MS)
    with live_net(plan, tmp_path) as (net, _):
        large_windows(net)
        ours = bulk_transfer(net, "p00s00", "p00s01", byte=250_000_000, skipped_byte=100_000_000)
        node = net.get("p00s00")
        node.cmd("ip link set to-p00s01 gso_max_segs 1 gso_max_size 1514")  # as packets that another node has split
        node.cmd("tc qdisc change dev to-p00s01 root netem delay 30ms rate 1gbit limit 1000")
        default = bulk_transfer(net, "p00s00", "p00s01", byte=45_000_000, skipped_byte=15_000_000)
    a_quarter, cap_bit_s = 0.25, 1000 * FRAME_BYTE * 8 / 0.030
    assert ours.best_bit_s > (1 - a_quarter) * GBIT * TCP_PAYLOAD_RATIO
    assert default.whole_bit_s < 1.02 * cap_bit_s


@pytest.mark.parametrize("aqm", [QueueKind.NONE, QueueKind.BFIFO], ids=lambda kind: kind.name)
def test_a_burst_survives_as_far_as_flight_and_queue_reach(tmp_path: Path, aqm: QueueKind) -> None:
    """A whole second is in flight, so all that is sent within it meets a queue from which nothing has arrived yet."""
    need_queue(aqm)
    plan = make_plan(2, [], [{(0, 1): 1000 * MS}], rate_bit_s=1_000_000, queue_ns=500 * MS, aqm=aqm)
    frame_s = FRAME_BYTE * 8 / 1_000_000
    with live_net(plan, tmp_path) as (net, _):
        survivors, sent_in_s = burst(net, 300)
    queue, served = 0.5 / frame_s, sent_in_s / frame_s
    in_the_bucket = 2 if aqm == QueueKind.BFIFO else 0
    of_the_kernel = 1  # it tells its neighbours which multicast it listens to, in small packets
    assert queue - 1 - of_the_kernel <= survivors <= queue + in_the_bucket + served + 1


@pytest.mark.parametrize("aqm", [QueueKind.NONE, QueueKind.BFIFO], ids=lambda kind: kind.name)
def test_small_packets_at_half_load_are_not_lost(tmp_path: Path, aqm: QueueKind) -> None:
    """A flight of 100 ms holds 195 of them, and no more than 17 full frames."""
    need_queue(aqm)
    plan = make_plan(2, [], [{(0, 1): 100 * MS}], rate_bit_s=2_000_000, queue_ns=20 * MS, aqm=aqm)
    count, frame_byte = 2_000, 64
    with live_net(plan, tmp_path) as (net, _):
        sender, receiver = udp_socket(net, "p00s00"), udp_socket(net, "p00s01", PORT)
        receiver.settimeout(2.0)
        target, payload = (net.get("p00s01").address, PORT), bytes(frame_byte - 14 - 20 - 8)
        dropped, begun_s = net.backend.dropped_packets(), time.monotonic()
        for number in range(count):
            time.sleep(max(begun_s + number * frame_byte * 8 / 1_000_000 - time.monotonic(), 0))
            sender.sendto(payload, target)
        arrived = len(list(_arrivals(receiver)))
        assert arrived == count, net.backend.dropped_packets() - dropped
        sender.close()
        receiver.close()


@pytest.mark.parametrize("loss_ratio", [0.0, 0.1])
def test_a_full_queue_stays_full_where_packets_are_lost_behind_it(tmp_path: Path, loss_ratio: float) -> None:
    """Twice the rate for 1 s: whoever arrives late has waited the whole queue, whatever the link then loses of them."""
    need_queue(QueueKind.BFIFO)
    rate_bit_s, queue_ns, sent_s = 4_000_000, 50 * MS, 1.0
    plan = make_plan(2, [], [{(0, 1): 10 * MS}], rate_bit_s=rate_bit_s, queue_ns=queue_ns)
    plan = replace(plan, row_loss_ratio=np.array([loss_ratio]))
    spacing_s, waits_ms = FRAME_BYTE * 8 / rate_bit_s / 2, []
    with live_net(plan, tmp_path) as (net, _):
        sender, receiver = udp_socket(net, "p00s00"), udp_socket(net, "p00s01", PORT)
        receiver.settimeout(0.0)
        begun_s = time.monotonic()
        for number in range(round(sent_s / spacing_s)):
            time.sleep(max(begun_s + number * spacing_s - time.monotonic(), 0))
            now = struct.pack("d", time.monotonic())
            sender.sendto(now + bytes(UDP_PAYLOAD_BYTE - len(now)), (net.get("p00s01").address, PORT))
            with suppress(BlockingIOError):
                while packet := receiver.recv(2048):
                    waits_ms.append((time.monotonic() - struct.unpack_from("d", packet)[0]) * 1e3 - 10)
        sender.close()
        receiver.close()
    arrived = rate_bit_s * sent_s / 8 / FRAME_BYTE * (1 - loss_ratio)
    assert abs(len(waits_ms) / arrived - 1) < 0.15
    late = waits_ms[len(waits_ms) // 2 :]
    assert statistics.median(late) == pytest.approx(queue_ns / MS, abs=2 * FRAME_BYTE * 8 / rate_bit_s * 1e3)


def _arrivals(receiver: socket.socket) -> Iterator[bytes]:
    try:
        while True:
            yield receiver.recv(2048)
    except TimeoutError:
        return


@pytest.mark.parametrize("aqm", [QueueKind.NONE, QueueKind.BFIFO], ids=lambda kind: kind.name)
def test_a_sender_whose_own_link_is_full_loses_packets_and_sends_them_again(tmp_path: Path, aqm: QueueKind) -> None:
    """A netem that is full tells the sender's TCP at once: it drops hundreds, and none is a loss to it."""
    need_queue(aqm)
    plan = make_plan(2, [], [{(0, 1): 20 * MS}], rate_bit_s=20_000_000, queue_ns=10 * MS, aqm=aqm)
    with live_net(plan, tmp_path) as (net, _):
        dropped = net.backend.dropped_packets()
        goodput = bulk_transfer(net, "p00s00", "p00s01", 8_000_000)
        dropped = net.backend.dropped_packets() - dropped
        header, values = net.get("p00s00").cmd("grep Tcp: /proc/net/snmp").splitlines()[:2]
        again = dict(zip(header.split(), values.split(), strict=True))["RetransSegs"]
    of_others = 2  # acknowledgements and the like
    assert 0 < dropped <= int(again) + of_others
    assert goodput.whole_bit_s > 20_000_000 / 2


def burst(net: IslNet, packets: int) -> tuple[int, float]:
    """Send full frames as fast as it goes; how many arrive, and how long the sending took."""
    sender, receiver = udp_socket(net, "p00s00"), udp_socket(net, "p00s01", PORT)
    receiver.settimeout(2.0)
    target, payload = (net.get("p00s01").address, PORT), bytes(UDP_PAYLOAD_BYTE)
    begun = time.monotonic()
    for _ in range(packets):
        sender.sendto(payload, target)
    took_s, arrived = time.monotonic() - begun, 0
    try:
        while receiver.recv(2048):
            arrived += 1
    except TimeoutError:
        return arrived, took_s
    finally:
        sender.close()
        receiver.close()


def test_each_direction_has_its_own_rate(tmp_path: Path) -> None:
    plan = make_plan(2, [], [{(0, 1): 2 * MS}])
    plan = replace(plan, row_rate_ab_bit_s=np.array([40_000_000]), row_rate_ba_bit_s=np.array([8_000_000]))
    with live_net(plan, tmp_path) as (net, _):
        there = bulk_transfer(net, "p00s00", "p00s01", byte=5_000_000)
        back = bulk_transfer(net, "p00s01", "p00s00", byte=1_000_000)
    check_rate(there, 40_000_000)
    check_rate(back, 8_000_000)


def check_rate(goodput: Goodput, rate_bit_s: int) -> None:
    """Not more than the rate, and what a flow with losses makes of it at the least."""
    a_fifth = 0.2
    assert goodput.whole_bit_s / TCP_PAYLOAD_RATIO <= 1.01 * rate_bit_s
    assert goodput.best_bit_s / TCP_PAYLOAD_RATIO >= (1 - a_fifth) * rate_bit_s


@pytest.mark.parametrize("aqm", [QueueKind.NONE, *ACTIVE], ids=lambda kind: kind.name)
def test_a_managed_queue_stays_short_under_load_and_loses_no_rate(tmp_path: Path, aqm: QueueKind) -> None:
    """A bulk flow fills a queue of 200 ms until it is full, or to about the target of 5 ms if it is managed."""
    need_queue(aqm)
    rate_bit_s, seconds = 20_000_000, 3.5
    with live_net(bottleneck(rate_bit_s, 10 * MS, 200 * MS, aqm), tmp_path) as (net, replay):
        dropped = net.backend.dropped_packets()
        goodput, waits_ms = load_and_ping(net, round(rate_bit_s * seconds / 8))
        assert replay.verify_all() == []
        dropped = net.backend.dropped_packets() - dropped
    check_rate(goodput, rate_bit_s)
    assert dropped > 0 or aqm == QueueKind.NONE  # which may not be full yet
    low_ms, _, high_ms = statistics.quantiles(waits_ms, n=4)  # others on the machine only make single pings longer
    assert high_ms > 60 if aqm == QueueKind.NONE else low_ms < 5 + SMALL_PING_MS


def load_and_ping(net: IslNet, byte: int) -> tuple[Goodput, list[float]]:
    """The goodput of a bulk flow, and by how much longer pings took while it had been running for a second."""
    unloaded_ms = 2 * (1 + 10)
    pinging = net.get("p00s00")
    pinging.sendCmd("sleep 1.2; ping -c 30 -i 0.05 p00s02")
    goodput = bulk_transfer(net, "p00s00", "p00s02", byte)
    return goodput, [time_ms - unloaded_ms for time_ms in ping_times_ms(pinging.waitOutput())]


@pytest.mark.parametrize("aqm", ACTIVE, ids=lambda kind: kind.name)
def test_a_flow_that_can_be_marked_loses_nothing(tmp_path: Path, aqm: QueueKind) -> None:
    need_queue(aqm)
    with live_net(bottleneck(10_000_000, 10 * MS, 500 * MS, aqm), tmp_path) as (net, _):
        for name in ("p00s00", "p00s02"):
            net.get(name).cmd("sysctl -qw net.ipv4.tcp_ecn=1")
        assert net.backend.marked_packets() == 0
        dropped = net.backend.dropped_packets()
        bulk_transfer(net, "p00s00", "p00s02", 1_500_000)
        assert net.backend.dropped_packets() == dropped
        assert net.backend.marked_packets() > 0


def test_a_managed_link_delays_and_serialises_as_planned(tmp_path: Path) -> None:
    """Idle: 2 x 20 ms and twice a frame of 1,514 bytes at 2 Mbit/s, 6 ms; nothing waits."""
    need_queue(QueueKind.CODEL)
    plan = make_plan(2, [], [{(0, 1): 20 * MS}], rate_bit_s=2_000_000, aqm=QueueKind.CODEL)
    with live_net(plan, tmp_path) as (net, _):
        times = ping_times_ms(net.get("p00s00").cmd(f"ping -s {1500 - 28} -c 15 -i 0.06 p00s01"))
    planned_ms, headroom_ms = 2 * (20 + FRAME_BYTE * 8 / 2_000), 2 * 0.02 * FRAME_BYTE * 8 / 2_000
    assert planned_ms - headroom_ms - 0.3 <= min(times) <= planned_ms + 1.5


def test_rates_of_managed_links_follow_the_plan(tmp_path: Path) -> None:
    """The rate changes at each instant, and what reads back is the bucket's rate as well as the netem's."""
    need_queue(QueueKind.FQ_CODEL)
    plan = make_plan(2, [], [{(0, 1): 5 * MS}] * 4, step_ns=100 * MS, aqm=QueueKind.FQ_CODEL)
    rates = np.array([1, 2, 3, 40]) * GBIT
    plan = replace(plan, row_rate_ab_bit_s=rates, row_rate_ba_bit_s=rates // 2)
    with live_net(plan, tmp_path) as (net, replay):
        replay.run(time.monotonic_ns(), threading.Event())
        assert replay.mismatches == replay.verify_all() == []
        found = net.backend.read_ends([0, 1])
        assert found["queue_rate_bit_s"].tolist() == [40 * GBIT, 20 * GBIT]
        net.get("p00s00").cmd("tc qdisc change dev queue-1000 root handle 1: tbf rate 1gbit burst 20000 limit 100000")
        (wrong,) = replay.verify_all()
        assert "behind fq_codel at 1 Gbit/s of 100000 bytes, but the plan says" in wrong
        assert "behind fq_codel at 40 Gbit/s" in wrong
        net.get("p00s01").cmd("tc qdisc del dev to-p00s00 clsact")
        assert len(replay.verify_all()) == 2


def test_a_message_crosses_several_hops_as_a_stream_of_frames(tmp_path: Path) -> None:
    """60 kB over five hops at 100 Mbit/s: serialised once, and one frame more at each further hop.

    With super-packets of the kernel's own size each hop would wait for the whole of one before it sends the first byte.
    """
    hops, byte, rate_bit_s = 5, 60_000, 100_000_000
    plan = make_plan(hops + 1, [], [{(hop, hop + 1): MS for hop in range(hops)}], rate_bit_s=rate_bit_s)
    frame_s = FRAME_BYTE * 8 / rate_bit_s
    planned_s = byte / 1448 * frame_s + (hops - 1) * frame_s + 2 * hops * 0.001
    with live_net(plan, tmp_path) as (net, _):
        ours_s = min(message_times_s(net, "p00s00", f"p00s{hops:02d}", byte))
        for hop in range(hops):
            net.get(f"p00s{hop:02d}").cmd(f"ip link set to-p00s{hop + 1:02d} gso_max_size 65536 gso_max_segs 65535")
        falsified_s = min(message_times_s(net, "p00s00", f"p00s{hops:02d}", byte))
    two_ms = 0.002
    assert planned_s <= ours_s <= planned_s + two_ms
    assert falsified_s > planned_s + two_ms
