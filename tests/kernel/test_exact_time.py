"""Real boots of the guest kernel that has exact time, driven from outside as `isl-emu run` does."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from pathlib import Path

import pytest

from isl_emu.errors import MachineError
from isl_emu.machine import guest
from isl_emu.machine.calendar_control import CalendarControl, ring
from isl_emu.machine.guest import clean_guest
from isl_emu.runs.directory import RunDirectory
from tests.exact_guest import SAY, START_UTC_S, needs_exact_time, said_in_guest

PATIENCE_S = 60  # of these tests, by the wall

pytestmark = needs_exact_time


@pytest.fixture
def run(guest_run: RunDirectory) -> RunDirectory:
    return guest_run


SLEEP = """
say(int(time.time()))
for duration_ns in (1, 999, 12_345, 50_000_000, 7_000_000_001):
    deadline_ns = time.monotonic_ns() + duration_ns
    sleep_until(deadline_ns)
    say(time.monotonic_ns() - deadline_ns)
began_ns = time.monotonic_ns()
select.select([], [], [], 0.05)
say(time.monotonic_ns() - began_ns)
sum(range(3_000_000))
say(time.monotonic_ns() - began_ns)
"""


def test_sleeps_end_at_their_nanosecond_and_computing_takes_no_time(run, folder):
    date, *late, selected, computed = map(int, said_in_guest(run, folder, SAY + SLEEP).split())
    assert date == START_UTC_S + 2  # the guest's boot
    assert late == [0] * 5
    assert selected == computed == 50_000_000


HOPS = """
names = [f"n{number}" for number in range(4)]
for name in names:
    sh(f"ip netns add {name}; ip -n {name} link set lo up")
for left, (a, b) in enumerate(zip(names, names[1:])):
    sh(f"ip -n {a} link add right type veth peer name left netns {b}")
    sh(f"ip -n {a} addr add 10.0.{left}.1/24 dev right; ip -n {b} addr add 10.0.{left}.2/24 dev left")
    for name, end in ((a, "right"), (b, "left")):
        sh(f"ip -n {name} link set {end} up; ip netns exec {name} sysctl -qw net.ipv4.ip_forward=1")
        sh(f"tc -n {name} qdisc add dev {end} root netem delay 3456us rate 1gbit")
sh("ip -n n0 route add default via 10.0.0.2; ip -n n1 route add 10.0.2.0/24 via 10.0.1.2")
sh("ip -n n3 route add default via 10.0.2.1; ip -n n2 route add 10.0.0.0/24 via 10.0.1.1")
for target in ("10.0.0.2", "10.0.1.2", "10.0.2.2"):
    sh(f"ip netns exec n0 ping -q -c 2 -i 1 {target} > /dev/null")  # neighbours are known now
enter("n0")
for target in ("10.0.0.2", "10.0.1.2", "10.0.2.2"):
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as echo:
        echo.sendto(bytes.fromhex("0800f7ff00000000"), (target, 0))
        began_ns = time.monotonic_ns()
        echo.recv(256)
        say(time.monotonic_ns() - began_ns)
"""


CLOCKS = """
import ctypes

def from_kernel_ns(clock):
    found = (ctypes.c_long * 2)()
    ctypes.CDLL(None).syscall(228, clock, found)
    return found[0] * 10**9 + found[1]

clocks = time.CLOCK_REALTIME, time.CLOCK_MONOTONIC
for setting in (None, 5_000_000_000_123_456_789):
    if setting:
        time.clock_settime_ns(time.CLOCK_REALTIME, setting)
    for pause_s in (0, 1e-9, 0.25):
        time.sleep(pause_s)
        if os.fork() == 0:
            say(*(time.clock_gettime_ns(clock) - from_kernel_ns(clock) for clock in clocks))
            os._exit(0)
        os.wait()
say(time.time_ns() // 10**9)
"""


def test_the_time_that_programs_read_by_themselves_is_the_kernel_s(run, folder):
    *differences, set_s = said_in_guest(run, folder, "import os\n" + SAY + CLOCKS).split()
    assert differences == ["0"] * 12
    assert int(set_s) == 5_000_000_000


def test_a_round_trip_takes_what_delays_and_rates_say_over_any_number_of_hops(run, folder):
    found = list(map(int, said_in_guest(run, folder, SAY + HOPS).split()))
    one_way_ns = 3_456_000 + 8 * (14 + 20 + 8)  # Ethernet, IP, ICMP at 1 Gbit/s
    assert found == [2 * hops * one_way_ns for hops in (1, 2, 3)]


SPIN = """
began_ns = time.monotonic_ns()
while time.monotonic_ns() < began_ns + 300_000_000:
    pass
say((time.monotonic_ns() - began_ns) / 300_000_000)
a, b = socket.socketpair()
def answer():
    time.sleep(0.25)
    b.send(b"x")
threading.Thread(target=answer).start()
began_ns, a_ns = time.monotonic_ns(), None
a.setblocking(False)
while a_ns is None:
    try:
        a.recv(1)
        a_ns = time.monotonic_ns() - began_ns
    except BlockingIOError:
        pass
say(a_ns)
"""


def test_who_waits_without_sleeping_is_given_time_and_sees_events_at_their_instant(run, folder):
    clock_watched, polled_ns = said_in_guest(run, folder, SAY + SPIN).split()
    assert 1.0 <= float(clock_watched) <= 1.07
    assert int(polled_ns) == 250_000_000


TCP = """
sh("ip link set lo up; tc qdisc add dev lo root netem delay 7ms 2ms loss 1% rate 20mbit seed 5 2>/dev/null"
   " || tc qdisc add dev lo root netem delay 7ms rate 20mbit")
listener = socket.create_server(("127.0.0.1", 5000))
def send():
    with socket.create_connection(("127.0.0.1", 5000)) as out:
        for _ in range(40):
            out.sendall(bytes(50_000))
sender = threading.Thread(target=send)
sender.start()
connection, _ = listener.accept()
while data := connection.recv(65536):
    say(time.monotonic_ns(), len(data))
"""


def test_two_runs_are_the_same_to_the_nanosecond(run, folder):
    first = said_in_guest(run, folder, SAY + TCP)
    assert sum(int(line.split()[1]) for line in first.splitlines()) == 2_000_000
    assert said_in_guest(run, folder, SAY + TCP) == first


HOLD = """
from isl_emu.machine.calendar_control import CalendarControl, FOLDER_VARIABLE
import os
from pathlib import Path
CalendarControl(Path(os.environ[FOLDER_VARIABLE])).hold()
say(time.monotonic_ns())
while not Path(sys.argv[1]).with_name("seen").exists():
    time.sleep(0.001)
say(time.monotonic_ns())
"""


def test_time_stands_at_once_for_who_wishes_it_inside_and_goes_on_for_who_wishes_it_outside(run, folder):
    def let_go_on() -> None:
        control, deadline_s = CalendarControl(run.path / "time"), time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline_s:
            if (state := control.state()) is not None and state.held:
                stood.append(state.now_ns)
                (folder / "results" / "seen").touch()
                control.go_on()
                return

    stood: list[int] = []
    waiter = threading.Thread(target=let_go_on)
    waiter.start()
    before_ns, after_ns = map(int, said_in_guest(run, folder, SAY + HOLD).split())
    waiter.join()
    assert stood == [before_ns]
    assert after_ns == before_ns + 1_000_000


RUNG = """
from isl_emu.machine.calendar_control import CalendarControl, FOLDER_VARIABLE, rings
import os
from pathlib import Path
bells, control = rings(), CalendarControl(Path(os.environ[FOLDER_VARIABLE]))
def answer():
    for _ in bells:
        say(time.monotonic_ns(), subprocess.run(["echo", "done"], capture_output=True, text=True).stdout.strip())
        control.go_on()
threading.Thread(target=answer, daemon=True).start()
time.sleep(0.01)
control.hold(time.monotonic_ns() + 500)
say(time.monotonic_ns())
time.sleep(1)
"""


def test_a_bell_is_heard_and_a_command_run_while_time_stands(run, folder):
    def ring_once() -> None:
        control, deadline_s = CalendarControl(run.path / "time"), time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline_s:
            if (state := control.state()) is not None and state.held:
                time.sleep(0.2)
                ring(run.path / "guest")
                return

    ringer = threading.Thread(target=ring_once)
    ringer.start()
    before_ns, rung_ns, done = said_in_guest(run, folder, SAY + RUNG).split()
    ringer.join()
    assert before_ns <= rung_ns <= str(int(before_ns) + 500) and done == "done"


def test_with_a_factor_time_is_not_ahead_of_the_wall(run, folder):
    began_s = time.monotonic()
    said_in_guest(run, folder, SAY + "time.sleep(2)", factor=2.0)
    assert time.monotonic() - began_s >= (2 + 2) / 2.0


def test_a_program_that_computes_without_end_ends_the_run_with_a_sentence(run, folder, monkeypatch):
    monkeypatch.setattr(guest, "PATIENCE_S", 3)
    sentence = r"^guest 0: .* computed for \d+ s of the wall clock .* but 3 s are the most; .* \(it runs python"
    with pytest.raises(MachineError, match=sentence):
        said_in_guest(run, folder, SAY + "import re; re.match('(a+)+b', 'a' * 60)")


BLOCK = """
import mmap
area = mmap.mmap(-1, 64 << 12, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
address = ctypes.addressof(ctypes.c_char.from_buffer(area))
page = 16 - (address >> 12) % 16 + 3
area[page << 12] = 1
held = (ctypes.c_char * 64)()
libc.mincore(ctypes.c_void_p(address), ctypes.c_size_t(64 << 12), held)
say([number - page for number in range(64) if held.raw[number] & 1])
say(area[:].count(b"\\1"), area[:].count(b"\\0"))
"""


def test_who_writes_to_new_memory_gets_the_rest_of_its_block_of_pages(run, folder):
    """A fault costs as much as ten pages. The block has 16, and the page that is written is its fourth."""
    held, content = said_in_guest(run, folder, SAY + BLOCK).splitlines()
    assert held == str(list(range(13)))
    assert content == f"1 {(64 << 12) - 1}"


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no C compiler")
def test_registers_outlive_calls_faults_switches_signals_and_copies(run, folder):
    """The kernel leaves a program's floating-point registers where they are until somebody else needs the place."""
    (folder / "results").mkdir()
    source, program = Path(__file__).with_name("registers.c"), folder / "results" / "registers"
    subprocess.run(["gcc", "-O1", "-pthread", str(source), "-o", str(program)], check=True)
    asked = "say(subprocess.run([sys.argv[2]], capture_output=True, text=True).stdout.strip())"
    assert said_in_guest(run, folder, SAY + asked, None, 0, str(program)) == "right\n"


def test_nothing_is_left_of_a_run(run, folder):
    said_in_guest(run, folder, SAY)
    assert sorted(path.name for path in run.path.iterdir()) == []
    shutil.rmtree(run.path)
    run.path.mkdir()
    assert clean_guest(run) == []
