"""Links between guests that share one virtual clock: what crosses arrives as it would in one guest."""

from __future__ import annotations

import random
import socket
import sys
import threading
import time
from itertools import combinations
from pathlib import Path

import pytest

from isl_emu.errors import MachineError
from isl_emu.machine import guest
from isl_emu.machine.guest import VirtualClock, guest_folder, run_in_guest, run_in_guests
from isl_emu.machine.guest import _trunks as usual_trunks
from isl_emu.runs.directory import RunDirectory
from isl_emu.units import NS_PER_S
from tests.exact_guest import MEMORY_BYTE, START_UTC_S, needs_exact_time

LOOKAHEAD_NS = 3_000_000  # less than the delays of all links
CLOCK = VirtualClock(START_UTC_S * NS_PER_S)

pytestmark = needs_exact_time


@pytest.fixture
def run(guest_run: RunDirectory) -> RunDirectory:
    return guest_run


# A chain of nodes a - b - c, of which a guest has some; what node c receives and when, and what comes back to a.
CHAIN = """
import ctypes, os, socket, subprocess, sys, threading, time
import numpy as np
from isl_emu.network import messages
from isl_emu.nodes.netlink import Netlink

libc = ctypes.CDLL(None)
folder, part, of_node = sys.argv[1], int(sys.argv[2]), dict(zip("abc", map(int, sys.argv[3])))
mine = [name for name, where in of_node.items() if where == part]

def sh(line):
    subprocess.run(line, shell=True, check=True)

def inside(name, work):
    def enter_and_work():
        with open(f"/run/netns/{name}") as space:
            libc.setns(space.fileno(), 0x40000000)
        work()
    thread = threading.Thread(target=enter_and_work)
    thread.start()
    return thread

def end(number, side):
    values = [10 + number], [[2, 0, 0, 0, number, side]], [65536], [1514]
    index, mac, gso_byte, frame_byte = map(np.array, values)
    return messages.veth_ends([f"l{number}"], index, mac.astype(np.uint8), gso_byte, frame_byte)

def make(number, side, one, other):
    if of_node[one] == of_node[other] == part:
        if side == 0:
            with open(f"/run/netns/{other}") as space:
                made = messages.new_veths(end(number, 0), end(number, 1), np.array([space.fileno()]))
                Netlink().demand([made.tobytes()], "link")
    else:
        made = messages.new_trunks(end(number, side), np.array([of_node[other]]), np.array([number]))
        Netlink().demand([made.tobytes()], "link")

for name in mine:
    sh(f"ip netns add {name}; ip -n {name} link set lo up; ip netns exec {name} sysctl -qw net.ipv4.ip_forward=1")
links = [(number, side, pair[side], pair[1 - side]) for number, pair in enumerate(("ab", "bc")) for side in (0, 1)]
for number, side, one, other in links:
    if one in mine:
        inside(one, lambda: make(number, side, one, other)).join()
for number, side, one, other in links:
    if one in mine:
        sh(f"ip -n {one} addr add 10.0.{number}.{side + 1}/24 dev l{number}")
        sh(f"tc -n {one} qdisc add dev l{number} root netem delay {4321 + 1000 * number}us rate 50mbit limit 100")
        sh(f"ip -n {one} link set l{number} up")
        sh(f"ip -n {one} neigh add 10.0.{number}.{2 - side} lladdr 02:00:00:00:0{number}:0{1 - side} dev l{number}")
if "a" in mine:
    sh("ip -n a route add default via 10.0.0.2")
if "c" in mine:
    sh("ip -n c route add default via 10.0.1.1")

def sleep_until(s):
    while (left_ns := int(s * 1e9) - time.monotonic_ns()) > 0:
        time.sleep(left_ns / 1e9)

def write(name, lines):
    with open(f"{folder}/{name}", "w") as file:
        print(*lines, sep="\\n", file=file)

def serve():
    seen, datagrams, listener = [], socket.socket(type=socket.SOCK_DGRAM), socket.create_server(("", 7001))
    datagrams.bind(("", 7000))
    for _ in range(40):
        data, sender = datagrams.recvfrom(2000)
        seen.append(f"{time.monotonic_ns()} {len(data)}")
        datagrams.sendto(data[:100], sender)
    connection, _ = listener.accept()
    while data := connection.recv(1 << 20):
        seen.append(f"{time.monotonic_ns()} {len(data)}")
    write("c", seen)

def ask():
    seen, datagrams = [], socket.socket(type=socket.SOCK_DGRAM)
    sleep_until(6)
    for number in range(40):  # faster than the link
        datagrams.sendto(bytes(20 + 30 * number), ("10.0.1.2", 7000))
    for _ in range(40):
        data = datagrams.recv(2000)
        seen.append(f"{time.monotonic_ns()} {len(data)}")
    with socket.create_connection(("10.0.1.2", 7001)) as connection:
        connection.sendall(bytes(2_000_000))
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1)
        seen.append(f"{time.monotonic_ns()} end")
    write("a", seen)

def count():
    sleep_until(9)
    for name in mine:
        with open(f"/run/netns/{name}") as space:
            libc.setns(space.fileno(), 0x40000000)
        shown = subprocess.run(["tc", "-s", "qdisc", "show"], capture_output=True, text=True).stdout
        devices = open("/proc/self/net/dev").read()
        lines = [" ".join(line.split()) for line in (shown + devices).splitlines() if "lo" not in line]
        write(f"counted-{name}", [line for line in lines if line.startswith(("Sent", "backlog", "l"))])

tasks = [inside(name, work) for name, work in (("c", serve), ("a", ask)) if name in mine]
counting = threading.Thread(target=count)
counting.start()
for task in [*tasks, counting]:
    task.join()
"""


def _seen(run: RunDirectory, folder: Path, parts: str) -> dict[str, str]:
    """What is seen in the nodes a, b and c, each in the guest that `parts` names."""
    results = folder / f"results-{parts}"
    results.mkdir()
    (results / "program.py").write_text(CHAIN)
    count = int(max(parts)) + 1
    statuses = run_in_guests(
        [[sys.executable, str(results / "program.py"), str(results), str(part), parts] for part in range(count)],
        run=run, writable=[results], memory_byte=[MEMORY_BYTE] * count, clock=CLOCK, lookahead_ns=LOOKAHEAD_NS,
    )  # fmt: skip
    assert statuses == [0] * count
    return {path.name: path.read_text() for path in results.iterdir() if path.name != "program.py"}


def _pump_slowly(source: socket.socket, target: socket.socket) -> None:
    chance = random.Random(source.fileno())
    while data := source.recv(1 << 16):
        cut = chance.randrange(len(data))
        for piece in (data[:cut], data[cut:]):
            time.sleep(chance.random() ** 8 * 0.02)
            target.sendall(piece)
    target.shutdown(socket.SHUT_WR)


def _slow_trunks(count: int) -> list[dict[int, socket.socket]]:
    """Trunks on which what is sent takes some time of the wall, mostly little, and comes in pieces."""
    trunks = usual_trunks(count)
    for one, other in combinations(range(count), 2):
        far = trunks[other][one]
        trunks[other][one], near = socket.socketpair()
        for way in ((far, near), (near, far)):
            threading.Thread(target=_pump_slowly, args=way, daemon=True).start()
    return trunks


def test_packets_cross_between_guests_to_the_nanosecond_as_in_one(run, folder, monkeypatch):
    one = _seen(run, folder, "000")
    assert len(one["a"].splitlines()) == 41
    assert sum(int(line.split()[1]) for line in one["c"].splitlines()[40:]) == 2_000_000
    assert set(one) == {"a", "c", "counted-a", "counted-b", "counted-c"}
    assert _seen(run, folder, "001") == one
    assert _seen(run, folder, "012") == one
    monkeypatch.setattr(guest, "_trunks", _slow_trunks)
    assert _seen(run, folder, "010") == one


def test_when_one_guest_fails_the_others_end_and_it_says_why(run, folder, capfd):
    statuses = run_in_guests(
        [["sleep", "1000000"], ["sh", "-c", "echo it is full; exit 7"]],
        run=run, writable=[], memory_byte=[MEMORY_BYTE] * 2, clock=CLOCK, lookahead_ns=LOOKAHEAD_NS,
    )  # fmt: skip
    assert statuses[0] != 0
    assert statuses[1] == 7
    assert "guest 1 ended with status 7" in (said := capfd.readouterr().err)
    assert "it is full" in said
    assert not guest_folder(run, 1).exists()


def test_a_guest_that_dies_ends_all(run, folder):
    with pytest.raises(MachineError, match="died while the command ran"):
        run_in_guests(
            [["sleep", "1000000"], ["sh", "-c", "sleep 3; echo c > /proc/sysrq-trigger"]],
            run=run, writable=[], memory_byte=[MEMORY_BYTE] * 2, clock=CLOCK, lookahead_ns=LOOKAHEAD_NS,
        )  # fmt: skip
    assert not guest_folder(run, 0).exists()


def test_a_link_that_is_shorter_than_the_lookahead_is_refused_where_it_is_used(run, folder):
    with pytest.raises(MachineError, match="takes 1000000 ns, the lookahead is 3000000"):
        program = CHAIN.replace("{4321 + 1000 * number}us", "1000us").replace("rate 50mbit ", "")
        (folder / "results").mkdir()
        (folder / "results" / "program.py").write_text(program)
        words = [sys.executable, str(folder / "results" / "program.py"), str(folder / "results")]
        run_in_guests(
            [[*words, "0", "001"], [*words, "1", "001"]],
            run=run, writable=[folder / "results"], memory_byte=[MEMORY_BYTE] * 2, clock=CLOCK,
            lookahead_ns=LOOKAHEAD_NS,
        )  # fmt: skip


def test_a_lone_guest_has_no_trunks(run, folder):
    make = "import numpy as np; from isl_emu.nodes.netlink import Netlink; from isl_emu.network import messages as m; "
    make += "one = np.array([1]); end = m.veth_ends(['x'], 10 * one, np.zeros((1, 6), 'u1'), 2000 * one, 1514 * one); "
    make += "Netlink().demand([m.new_trunks(end, one, one).tobytes()], 'link')"
    script = f"{sys.executable} -c {make!r} 2>&1 | grep -q 'not supported'"
    assert run_in_guest(["sh", "-c", script], run=run, writable=[], memory_byte=MEMORY_BYTE, clock=CLOCK) == 0
