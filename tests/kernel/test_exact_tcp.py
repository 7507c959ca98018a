"""TCP in exact time: completion times are those of closed forms, to the nanosecond, where such forms exist.

A server sends to a client over a router. The server's end serialises at RATE and delays by NEAR, the router's end
delays by FAR; acknowledgements take the same way back, serialised at the client's end.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest

from isl_emu.machine.guest import clean_guest
from isl_emu.runs.directory import RunDirectory
from isl_emu.units import NS_PER_S
from tests.exact_guest import SAY, needs_exact_time, said_in_guest

pytestmark = needs_exact_time

RATE_BYTE_S = 12_500_000
NEAR_NS, FAR_NS = 7_000_000, 13_000_000
ONE_WAY_NS = NEAR_NS + FAR_NS
PAYLOAD_BYTE = 1448  # of a full segment with timestamps (RFC 7323) in an MTU of 1500
HEADER_BYTE = 14 + 20 + 20 + 12  # Ethernet, IPv4, TCP, timestamps
SYN_BYTE = 14 + 20 + 20 + 20  # with MSS, SACK permitted, timestamps, window scale
SACK_BYTE = HEADER_BYTE + 12  # with one block (RFC 2018)
FULL_BYTE = HEADER_BYTE + PAYLOAD_BYTE
INITIAL_WINDOW = 10  # segments, RFC 6928
DUPLICATES = 3  # RFC 5681, 3.2
SHORT, LONG = 70, 360  # segments of a transfer: three windows; five and a part
LOST = 50  # the segment that is lost, the 20th of the third window
SLOW_BIT_S, LOSSY_BYTE = 20_000_000, 8_000_000


def _wire_ns(byte: int) -> int:
    return byte * NS_PER_S // RATE_BYTE_S


def window_begins_ns(number: int, one_way_ns: int = ONE_WAY_NS, hops: int = 1) -> int:
    """From connect() until the server sends the first segment of its window `number`, from 0.

    Every segment that is acknowledged opens the window by one (slow start, RFC 5681 section 3.1, with RFC 3465 without
    limit, as Linux has it), so windows double, whether each segment is acknowledged or every second. The next window
    begins with the first acknowledgement of the one before, and follows without gaps while its serialisation lasts.
    That acknowledgement is for one segment: Linux delays none (RFC 1122, 4.2.3.2) while the receiver's window opens,
    which is for the first 210 segments here (tcp_grow_window in net/ipv4/tcp_input.c), and so at the head of all five
    windows.

    Args:
        hops: how often a frame is serialised on its way, each time at RATE.
    """
    syn_ns, header_ns, full_ns = (hops * _wire_ns(byte) for byte in (SYN_BYTE, HEADER_BYTE, FULL_BYTE))
    begins_ns = 2 * (syn_ns + one_way_ns) + header_ns + one_way_ns  # the three-way handshake
    return begins_ns + number * (full_ns + header_ns + 2 * one_way_ns)


def slow_start_ns(segments: int, one_way_ns: int = ONE_WAY_NS, hops: int = 1) -> int:
    """From connect() until the last of so many segments is there."""
    number, window = 0, INITIAL_WINDOW
    while segments > window:
        number, segments, window = number + 1, segments - window, 2 * window
    begins_ns = window_begins_ns(number, one_way_ns, hops)
    return begins_ns + (segments + hops - 1) * _wire_ns(FULL_BYTE) + one_way_ns


def _one_lost_ns() -> int:
    """As `slow_start_ns` for SHORT segments of which LOST is lost: fast retransmit (RFC 5681, 3.2, and RFC 8985).

    The third segment after the lost one makes the third duplicate acknowledgement, and that the retransmission; by then
    the server has sent everything else.
    """
    before = 3 * INITIAL_WINDOW  # of the first two windows
    third_after_ns = window_begins_ns(2) + (LOST + DUPLICATES - before) * _wire_ns(FULL_BYTE) + ONE_WAY_NS
    return third_after_ns + _wire_ns(SACK_BYTE) + ONE_WAY_NS + _wire_ns(FULL_BYTE) + ONE_WAY_NS


PATH = """
import json
words = json.loads(sys.argv[2])
ends = {("server", "right"): "10.0.0.1", ("router", "left"): "10.0.0.2",
        ("router", "right"): "10.0.1.1", ("client", "left"): "10.0.1.2"}
for name in ("server", "router", "client"):
    sh(f"ip netns add {name}; ip -n {name} link set lo up")
    for line in ("net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1", "net.ipv4.ip_forward=1",
                 "net.ipv4.tcp_no_metrics_save=1", "net.ipv4.tcp_rmem='4096 4194304 4194304'",
                 "net.ipv4.tcp_wmem='4096 4194304 4194304'"):
        sh(f"ip netns exec {name} sysctl -qw {line}")
sh("ip -n server link add right type veth peer name left netns router")
sh("ip -n router link add right type veth peer name left netns client")
for number, ((name, end), address) in enumerate(ends.items()):
    sh(f"ip -n {name} link set {end} address 02:00:00:00:00:0{number} gso_max_segs 1 up")
    sh(f"ip -n {name} addr add {address}/24 dev {end}")
for (name, end), other, number in zip(ends, ("10.0.0.2", "10.0.0.1", "10.0.1.2", "10.0.1.1"), (1, 0, 3, 2)):
    sh(f"ip -n {name} neigh replace {other} lladdr 02:00:00:00:00:0{number} dev {end} nud permanent")
sh("ip -n server route add default via 10.0.0.2; ip -n client route add default via 10.0.1.1")
def shape(what, name, end, netem):
    sh(f"tc -n {name} qdisc {what} dev {end} root netem limit 10000 {netem}")
near, far, rate = (f"{words['near_ns'] // 1000}us", f"{words['far_ns'] // 1000}us", f"{8 * words['rate_byte_s']}bit")
shape("add", "server", "right", f"delay {near} rate {rate}")
shape("add", "router", "left", f"delay {near}")
shape("add", "router", "right", f"delay {far}")
shape("add", "client", "left", f"delay {far} rate {rate}")

def transfer(algorithm, byte, meanwhile=None):
    enter("server")
    listener = socket.create_server(("10.0.0.1", 5000), reuse_port=True)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, algorithm.encode())
    done = threading.Event()
    def serve():
        connection, _ = listener.accept()
        with connection, listener:
            connection.sendall(bytes(byte))
            done.wait()
    serving = threading.Thread(target=serve)
    serving.start()
    enter("client")
    with socket.socket() as client:
        began_ns, left = time.monotonic_ns(), byte
        if meanwhile:
            threading.Thread(target=meanwhile, args=[began_ns]).start()
        client.connect(("10.0.0.1", 5000))
        while left:
            left -= len(client.recv(min(left, 1 << 20)))
        took_ns = time.monotonic_ns() - began_ns
        done.set()
        serving.join()
    time.sleep(1)
    return took_ns

def lose(began_ns):
    sleep_until(began_ns + words["loss_begins_ns"])
    shape("change", "router", "right", f"delay {far} loss 100%")
    sleep_until(began_ns + words["loss_ends_ns"])
    shape("change", "router", "right", f"delay {far}")

found = {"short": transfer("reno", words["short_byte"]), "long": transfer("reno", words["long_byte"]),
         "one_lost": transfer("reno", words["short_byte"], lose)}
shape("change", "server", "right", f"delay {near} rate {words['slow_bit_s']}bit")
shape("change", "router", "right", f"delay {far} loss 1%")
found |= {name: transfer(name, words["lossy_byte"]) for name in ("bbr", "cubic")}
say(json.dumps(found))
"""


@pytest.fixture(scope="module")
def took_ns() -> dict[str, int]:
    """How long each transfer took, ns; all in one guest."""
    lost_at_router_ns = window_begins_ns(2) + (LOST - 3 * INITIAL_WINDOW) * _wire_ns(FULL_BYTE) + NEAR_NS
    words: dict[str, Any] = {
        "near_ns": NEAR_NS, "far_ns": FAR_NS, "rate_byte_s": RATE_BYTE_S, "slow_bit_s": SLOW_BIT_S,
        "short_byte": SHORT * PAYLOAD_BYTE, "long_byte": LONG * PAYLOAD_BYTE, "lossy_byte": LOSSY_BYTE,
        "loss_begins_ns": lost_at_router_ns - _wire_ns(FULL_BYTE) // 2,
        "loss_ends_ns": lost_at_router_ns + _wire_ns(FULL_BYTE) // 2,
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="isl-emu-test-") as name:
        run = RunDirectory("abc123", Path(name) / "run")
        run.path.mkdir()
        try:
            found: dict[str, int] = json.loads(said_in_guest(run, Path(name), SAY + PATH, None, 7, json.dumps(words)))
        finally:
            clean_guest(run)
    return found


@pytest.mark.parametrize(("name", "segments"), [("short", SHORT), ("long", LONG)])
def test_slow_start_takes_what_windows_delays_and_the_rate_say(
    took_ns: dict[str, int], name: str, segments: int
) -> None:
    assert took_ns[name] == slow_start_ns(segments)


def test_one_lost_segment_costs_what_fast_retransmit_says(took_ns: dict[str, int]) -> None:
    assert took_ns["one_lost"] == _one_lost_ns()


def test_random_loss_stops_cubic_and_not_bbr(took_ns: dict[str, int]) -> None:
    share = {name: 8 * LOSSY_BYTE * NS_PER_S / took_ns[name] / SLOW_BIT_S for name in ("bbr", "cubic")}
    assert share["bbr"] > 0.8
    assert share["cubic"] < 0.4  # 1.22 MSS / (RTT sqrt(p)), Mathis et al. 1997, is a sixth of the rate here


# How many segments 40 pieces of 10 bytes make that may be sent as one, while another connection sends as many.
PIECES = """
import struct
sh("ip link set lo up")
server = socket.create_server(("127.0.0.1", 0))
(one, end), (other, far_end) = [(socket.create_connection(server.getsockname()), server.accept()[0]) for name in "ab"]
one.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
for _ in range(40):
    one.send(bytes(10))
    other.send(bytes(10))
one.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)
end.recv(400, socket.MSG_WAITALL)
info = one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 160)
say(struct.unpack_from("I", info, 156)[0])  # tcpi_data_segs_out
"""


def test_segments_of_a_connection_do_not_depend_on_what_else_its_program_sends(
    guest_run: RunDirectory, tmp_path: Path
) -> None:
    """Else a server of many satellites would send other segments where another guest has some of them."""
    assert said_in_guest(guest_run, tmp_path, SAY + PIECES).split() == ["1"]
