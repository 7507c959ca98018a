"""Containers on a real kernel: what they hide, what they limit, and that nothing of them stays."""

from __future__ import annotations

import os
import re
import resource
import select
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from isl_emu.nodes.cgroups import find_hierarchy, remove_run_cgroups
from isl_emu.nodes.containers import Container
from isl_emu.nodes.namespaces import CAP_NET_ADMIN, KEPT_CAPABILITIES
from isl_emu.runs.directory import RunDirectory
from tests.break_outs import BREAK_OUTS

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="containers need root"),
]

NAME = "p00s00"
PLENTY_BYTE = 256 << 20
ANSWER_TIMEOUT_S = 60
MANY_FILES = 1_000_000
HOSTS = {NAME: "10.77.0.1", "gs-oslo": "10.77.0.2"}


@pytest.fixture
def netns(run: RunDirectory) -> Iterator[str]:
    name = f"isl-{run.run_id}-{NAME}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    yield f"/run/netns/{name}"
    subprocess.run(["ip", "netns", "del", name], check=True)


@pytest.fixture
def make(run: RunDirectory, netns: str) -> Iterator[Callable[..., Container]]:
    """Starts a container, and stops it after the test."""
    made: list[Container] = []

    def start(cpus: float = 1.0, memory_byte: int = PLENTY_BYTE, visible: tuple[Path, ...] = ()) -> Container:
        container = Container(NAME, netns, run, cpus, memory_byte, HOSTS, visible)
        made.append(container)
        container.start()
        return container

    yield start
    for container in made:
        container.stop()


def _says(container: Container, *argv: str) -> str:
    process = container.popen(argv, stdout=subprocess.PIPE, text=True)
    return process.communicate(timeout=ANSWER_TIMEOUT_S)[0].strip()


def test_writes_stay_inside(make: Callable[..., Container]) -> None:
    mark = Path("/etc/isl-emu-written-inside")
    container = make()
    assert _says(container, "sh", "-c", f"echo hidden > {mark} && cat {mark}") == "hidden"
    assert not mark.exists()
    assert _says(container, "cat", str(mark)) == "hidden"


def test_it_has_its_own_processes_name_hosts_and_network(make: Callable[..., Container], netns: str) -> None:
    container = make()
    patient = "for i in $(seq 100); do [ $(cat /proc/1/comm) = cat ] && break; sleep 0.1; done; cat /proc/1/comm"
    assert _says(container, "sh", "-c", patient) == "cat"  # it becomes that only after it has said that it is ready
    assert _says(container, "sh", "-c", "ls -d /proc/[0-9]* | wc -l") < "5"
    assert _says(container, "hostname") == _says(container, "cat", "/etc/hostname") == NAME
    assert "10.77.0.2\tgs-oslo" in _says(container, "cat", "/etc/hosts")
    assert os.stat(f"/proc/{container.pid}/ns/net").st_ino == os.stat(netns).st_ino
    for space in ("mnt", "pid", "uts", "ipc"):
        inside = _says(container, "readlink", f"/proc/self/ns/{space}")
        assert inside != os.readlink(f"/proc/self/ns/{space}")
        if space != "mnt":  # programs see the container's mounts with the kernel masked
            assert inside == os.readlink(f"/proc/{container.pid}/ns/{space}")


def test_devices_work_and_the_kernel_settings_are_read_only(make: Callable[..., Container]) -> None:
    container = make()
    assert _says(container, "sh", "-c", "head -c 3 /dev/zero | wc -c; echo x > /dev/null && echo ok") == "3\nok"
    assert _says(container, "sh", "-c", "mkdir /sys/x 2>/dev/null || echo no") == "no"
    assert _says(container, "sh", "-c", "ls -A /dev/shm; ls /run/netns 2>/dev/null || echo private") == "private"


def test_this_python_and_files_elsewhere_are_seen(make: Callable[..., Container], run: RunDirectory) -> None:
    model = run.path / "model.gguf"  # /run is a mount of its own, and private inside
    model.write_text("weights")
    container = make(visible=(model,))
    code = f"import isl_emu.errors, pathlib; print(pathlib.Path({str(model)!r}).read_text())"
    assert _says(container, sys.executable, "-c", code) == "weights"
    assert _says(container, "sh", "-c", f"echo x > {model} || echo no") == "no"


def test_a_program_is_in_the_group_before_it_runs(make: Callable[..., Container], run: RunDirectory) -> None:
    groups = _says(make(), "cat", "/proc/self/cgroup")
    assert len(re.findall(f":/isl-{run.run_id}/{NAME}$", groups, re.MULTILINE)) == len(find_hierarchy().roots)


def test_it_starts_as_fast_where_many_files_may_be_open(make: Callable[..., Container]) -> None:
    """Who cannot see which files are open closes each that could be: here 11 us each, 11 s in all."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (MANY_FILES, MANY_FILES))
    except (ValueError, OSError):
        pytest.skip("the limit of open files cannot be raised here")
    try:
        begun_s = time.monotonic()
        make()
        assert time.monotonic() - begun_s < 5.0
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_orphans_are_reaped(make: Callable[..., Container]) -> None:
    container = make()
    orphan = "sleep 0.01 & exec true"
    _says(container, "sh", "-c", orphan)
    check = "for i in 1 2 3 4 5 6 7 8 9 10; do sleep 0.05; ps -eo stat= | grep -q Z || break; done; ps -eo stat="
    assert "Z" not in _says(container, "sh", "-c", check)


def test_memory_beyond_the_limit_is_an_oom_kill(make: Callable[..., Container]) -> None:
    container = make(memory_byte=48 << 20)
    assert container.oom_kills() == 0
    greedy = container.popen([sys.executable, "-c", "x = bytearray(200 << 20)"])
    assert greedy.wait(ANSWER_TIMEOUT_S) == -signal.SIGKILL
    assert container.oom_kills() == 1
    assert _says(container, "echo", "alive") == "alive"


def _share_of_a_core(container: Container, seconds: float) -> float:
    """How much of a core a busy program gets, 0..1, by its own clocks."""
    code = (
        "import time; t, c = time.monotonic(), time.process_time()\n"
        f"while time.monotonic() - t < {seconds}: sum(range(2000))\n"
        "print((time.process_time() - c) / (time.monotonic() - t))"
    )
    return float(_says(container, sys.executable, "-c", code))


def test_a_share_of_a_core_is_not_exceeded(make: Callable[..., Container]) -> None:
    container = make(cpus=0.3)
    share = _share_of_a_core(container, 1.5)
    assert share < 0.45  # on a busy machine it gets less, never more
    counted = [folder / "cpu.stat" for folder in container.group.folders]
    throttled = re.findall(r"nr_throttled (\d+)", "".join(file.read_text() for file in counted if file.exists()))
    assert share < 0.2 or max(map(int, throttled)) > 10  # with so little it was others that held it up


def test_a_share_can_be_changed_while_it_runs(make: Callable[..., Container]) -> None:
    container, begun_ns = make(cpus=1.0), time.monotonic_ns()
    container.set_cpus(0.2)
    assert _share_of_a_core(container, 1.0) < 0.3
    used_ns = container.cpu_ns()
    assert 0 < used_ns < time.monotonic_ns() - begun_ns
    container.set_cpus(1.0)
    _share_of_a_core(container, 0.2)
    assert container.cpu_ns() > used_ns


ANSWERING = """
import socket
server = socket.create_server(("127.0.0.1", 8080), backlog=5)
print("ready", flush=True)
while True:
    sock, _ = server.accept()
    while sock.recv(1):
        sock.sendall(b"!")
"""
ASKING = """
import socket, sys
sock = socket.create_connection(("127.0.0.1", 8080), timeout=30)
for _ in sys.stdin:
    sock.sendall(b"?")
    print(sock.recv(1).decode(), flush=True)
"""


def _in_network(netns: str, code: str) -> subprocess.Popen:
    """A Python program in the node's network, but outside the container."""
    command = ["nsenter", f"--net={netns}", sys.executable, "-c", code]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _ask(asking: subprocess.Popen) -> None:
    asking.stdin.write("\n")
    asking.stdin.flush()


def test_a_suspended_computer_refuses_and_then_goes_on(make: Callable[..., Container], netns: str) -> None:
    subprocess.run(["nsenter", f"--net={netns}", "ip", "link", "set", "lo", "up"], check=True)
    container = make()
    server = container.popen([sys.executable, "-c", ANSWERING], stdout=subprocess.PIPE, text=True)
    assert server.stdout.readline() == "ready\n"
    early = _in_network(netns, ASKING)
    _ask(early)
    assert early.stdout.readline() == "!\n"
    assert not container.suspended
    container.suspend()
    container.suspend()
    assert container.suspended
    used_ns = container.cpu_ns()
    refused = _in_network(netns, ASKING)
    assert "ConnectionRefusedError" in refused.communicate(timeout=ANSWER_TIMEOUT_S)[1]
    _ask(early)
    assert not select.select([early.stdout], [], [], 0.5)[0]  # an open connection is silent
    assert container.cpu_ns() == used_ns
    container.resume()
    container.resume()
    assert early.stdout.readline() == "!\n"
    early.stdin.close()
    late = _in_network(netns, ASKING)
    _ask(late)
    assert late.stdout.readline() == "!\n"
    late.stdin.close()
    assert server.poll() is None
    for asking in (early, late):
        assert asking.wait(ANSWER_TIMEOUT_S) == 0


def test_what_is_started_in_a_suspended_computer_stands_still_once_it_is_seen(make: Callable[..., Container]) -> None:
    container = make()
    container.suspend()
    code = "import sys; print('begun', flush=True); print(sys.stdin.readline(), flush=True)"
    late = container.popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert late.stdout.readline() == "begun\n"
    container.suspend()
    late.stdin.write("go on\n")
    late.stdin.flush()
    assert not select.select([late.stdout], [], [], 0.5)[0]
    container.resume()
    assert late.stdout.readline() == "go on\n"
    late.communicate(timeout=ANSWER_TIMEOUT_S)


def test_a_suspended_container_can_be_stopped(make: Callable[..., Container]) -> None:
    container = make()
    program = container.popen(["sleep", "1000"])
    container.suspend()
    container.stop()
    assert program.returncode == -signal.SIGKILL


def test_a_frozen_container_stands_still_and_goes_on(make: Callable[..., Container], tmp_path: Path) -> None:
    """Also when one of its programs was stopped before, which then stays stopped."""
    container = make(visible=(tmp_path,))
    counting = "n=0; while :; do n=$((n + 1)); echo $n; done"
    busy = container.popen(["sh", "-c", counting], stdout=subprocess.PIPE)
    stopped = container.popen(["sleep", "1000"])
    stopped.send_signal(signal.SIGSTOP)
    os.waitpid(stopped.pid, os.WUNTRACED)
    assert container.group.freeze()
    while select.select([busy.stdout], [], [], 0.2)[0]:
        os.read(busy.stdout.fileno(), 1 << 16)
    used_ns = container.cpu_ns()
    assert not select.select([busy.stdout], [], [], 0.3)[0]
    assert container.cpu_ns() == used_ns
    container.group.thaw()
    assert select.select([busy.stdout], [], [], ANSWER_TIMEOUT_S)[0]
    assert Path(f"/proc/{stopped.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def test_a_frozen_container_can_be_stopped(make: Callable[..., Container]) -> None:
    container = make()
    program = container.popen(["sleep", "1000"])
    container.group.freeze()
    container.stop()
    assert program.returncode is not None


def test_stop_leaves_nothing(make: Callable[..., Container], run: RunDirectory) -> None:
    container = make()
    lasting = container.popen(["sh", "-c", "sleep 1000 & sleep 1000"])
    first = container.pid
    container.stop()
    container.stop()
    assert lasting.returncode == -signal.SIGKILL
    assert not Path(f"/proc/{first}").exists()
    assert str(run.path) not in Path("/proc/self/mounts").read_text()
    assert not [root for root in find_hierarchy().roots if (root / f"isl-{run.run_id}").exists()]
    assert [entry.name for entry in run.path.iterdir()] == ["owner.json"]


def test_it_ends_when_its_owner_is_killed(run: RunDirectory, netns: str) -> None:
    code = (
        "import os, sys, signal\n"
        "from isl_emu.runs.directory import RunDirectory\n"
        "from isl_emu.nodes.containers import Container\n"
        "from pathlib import Path\n"
        f"run = RunDirectory({run.run_id!r}, Path({str(run.path)!r}))\n"
        f"c = Container({NAME!r}, {netns!r}, run, 1.0, {PLENTY_BYTE}, {HOSTS})\n"
        "c.start(); p = c.popen(['sleep', '1000']); print(c.pid, p.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    owner = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=False)
    first, second = map(int, owner.stdout.split())
    assert owner.returncode == -signal.SIGKILL
    for pid in (first, second):
        _await_end(pid)
    assert remove_run_cgroups(run.run_id)


def _await_end(pid: int) -> None:
    """Wait until a process that is not our child is gone (or a zombie that its new parent has not yet reaped)."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([descriptor], [], [], ANSWER_TIMEOUT_S)[0], f"process {pid} still runs"
    finally:
        os.close(descriptor)


WORKS = """
    import os, pathlib, socket, subprocess
    def run(*words):
        subprocess.run(words, check=True, capture_output=True)
    run("ip", "link", "show"), run("ip", "route"), run("tc", "qdisc", "show"), run("ss", "-tan")
    run("ping", "-c", "1", "127.0.0.1")
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close()
    socket.create_server(("127.0.0.1", 80)).close()
    pathlib.Path("/etc/file").write_text("x")
    os.chown("/etc/file", 1000, 1000), os.chmod("/etc/file", 0o600)
    assert pathlib.Path("/etc/file").read_text() == "x"
    pathlib.Path("/root/file").write_text("x")
    run("setpriv", "--reuid", "1000", "--clear-groups", "true")
    assert "MemTotal" in open("/proc/meminfo").read() and open("/proc/cpuinfo").read()
    assert pathlib.Path("/proc/sys/net/ipv4/ip_forward").read_text()
    print("all works")
"""


@pytest.fixture
def secret(netns: str) -> Iterator[Path]:
    """A link in the node's network, and a file of root's on the machine."""
    subprocess.run(["ip", "-n", Path(netns).name, "link", "set", "lo", "up"], check=True)
    subprocess.run(["ip", "-n", Path(netns).name, "link", "add", "link0", "type", "veth", "peer", "link1"], check=True)
    subprocess.run(["ip", "-n", Path(netns).name, "link", "set", "link0", "up"], check=True)
    subprocess.run(["ip", "-n", Path(netns).name, "route", "add", "10.98.0.0/16", "dev", "link0"], check=True)
    secret = Path("/root/isl-emu-test-secret")
    secret.parent.mkdir(exist_ok=True)
    secret.write_text("secret")
    yield secret
    secret.unlink()


def test_a_strangers_program_cannot_break_out(make: Callable[..., Container], secret: Path) -> None:
    container = make()
    words = [sys.executable, "-c", BREAK_OUTS, str(secret), *Path(__file__).parts]
    process = container.popen(words, stdout=subprocess.PIPE, text=True)
    *said, rights = process.communicate(timeout=ANSWER_TIMEOUT_S)[0].splitlines()
    assert "\n".join(line for line in said if not line.startswith("held ")) == ""
    assert len(said) > 110
    kept = f"{sum(1 << number for number in KEPT_CAPABILITIES.values()):016x}"
    assert rights == f"rights {[kept, kept]}"
    assert _says(container, "echo", "alive") == "alive"


def test_a_strangers_program_may_do_what_experiments_need(make: Callable[..., Container], secret: Path) -> None:
    assert _says(make(), sys.executable, "-c", textwrap.dedent(WORKS)) == "all works"


def test_what_is_the_users_own_keeps_the_rights_of_root(make: Callable[..., Container], secret: Path) -> None:
    container = make()
    tries = "ip link set link0 down && mount -t tmpfs none /mnt && sysctl -qw net.ipv4.ip_forward=0 && echo done"
    process = container.popen(["sh", "-c", tries], own=True, stdout=subprocess.PIPE, text=True)
    assert process.communicate(timeout=ANSWER_TIMEOUT_S)[0].strip() == "done"


def test_who_may_route_changes_the_network_of_its_node_and_nothing_else(
    make: Callable[..., Container], run: RunDirectory, netns: str
) -> None:
    container = make()
    other = f"isl-{run.run_id}-other"
    subprocess.run(["ip", "netns", "add", other], check=True)
    try:
        tries = [
            "ip link add dummy7 type dummy", "ip link set dummy7 up", "ip address add 10.7.0.1/24 dev dummy7",
            "ip route add 10.8.0.0/16 via 10.7.0.2",
            f"nsenter --net=/proc/1/root/run/netns/{other} ip link set lo up", f"ip netns exec {other} true",
            "ip link set dummy7 netns 1", "sysctl -w net.ipv4.ip_forward=0", "mount -t tmpfs none /mnt",
        ]  # fmt: skip
        lines = "; ".join(f"{words} >/dev/null 2>&1 && echo may || echo not" for words in tries)
        for keep, routes in (((), "not"), ((CAP_NET_ADMIN,), "may")):
            process = container.popen(["sh", "-c", lines], users=True, keep=keep, stdout=subprocess.PIPE, text=True)
            said = process.communicate(timeout=ANSWER_TIMEOUT_S)[0].split()
            assert said[:4] == [routes] * 4, keep
            assert [said[4], said[5], said[7], said[8]] == ["not"] * 4, keep
        found = subprocess.run(["ip", "-n", Path(netns).name, "route"], capture_output=True, text=True, check=True)
        assert "10.8.0.0/16 via 10.7.0.2" in found.stdout
    finally:
        subprocess.run(["ip", "netns", "del", other], check=True)


def test_a_fork_bomb_ends_at_the_limit_of_processes(
    make: Callable[..., Container], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("isl_emu.nodes.cgroups.MAX_TASKS", 20)
    code = (
        "import os, time\n"
        "for started in range(99):\n"
        "    try: child = os.fork()\n"
        "    except OSError: break\n"
        "    if child == 0: os.close(1), time.sleep(60)\n"
        "print(started)"
    )
    container = make()
    assert 10 < int(_says(container, sys.executable, "-c", code)) < 20
