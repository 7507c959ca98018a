"""What a scenario could try from inside a guest, or with the guest's kernel in its hands: all of it is in vain."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from isl_emu.errors import MachineError
from isl_emu.machine.guardian import Order
from isl_emu.machine.guest import run_in_guest, view_of_machine
from isl_emu.machine.sandbox import NOBODY
from isl_emu.machine.uml import find_uml
from isl_emu.runs.directory import RunDirectory

MEMORY_BYTE = 512 << 20
ROOT = Path(__file__).resolve().parents[2]
HOSTFS = """
    mkdir /mnt/host /mnt/leak && mount -t hostfs none /mnt/host -o / || exit 9
    host=/mnt/host
    try() { what=$1; shift; if sh -c "$*" > /dev/null 2>&1; then echo "DONE $what"; else echo "held $what"; fi; }
    for folder in / /root /etc /usr /tmp /home /var/tmp $PROJECT $PROJECT/isl_emu $SECRET_FOLDER $PYTHON; do
        try "write $folder" "echo x > $host$folder/isl-emu-canary"
    done
    try "read /etc/shadow" "test -s $host/etc/shadow"
    try "read secret" "cat $host$SECRET"
    try "list /root" "ls -A $host/root | grep ."
    try "list /home" "ls -A $host/home | grep ."
    try "setuid program" "cp /bin/true $host$PROJECT/isl_emu/x && chmod 4755 $host$PROJECT/isl_emu/x"
    try "mode of a foreign file" "chmod 4755 $host$PROJECT/isl_emu/cli.py"
    try "owner of a foreign file" "chown 1:1 $host$PROJECT/isl_emu/cli.py"
    try "core_pattern" "test -e $host/proc/sys/kernel/core_pattern"
    try "a process of the host" "ls -d $host/proc/[0-9]*"
    try "environment of a process" "cat $host/proc/$LAUNCHER/environ"
    try "cgroup of the host" "mkdir $host/sys/fs/cgroup/isl-emu-canary"
    try "disk" "ls $host/dev | grep -Ev '^(null|shm)$'"
    try "device file" "mknod $host$RESULTS/device b 254 0"
    try "network device" "ls -d /sys/class/net/*/device"
    for number in 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do
        for up in . .. ../../../../../..; do
            mount -t hostfs none /mnt/leak -o /proc/self/fd/$number/$up 2> /dev/null || continue
            try "descriptor $number $up" "test -e /mnt/leak$SECRET"
            umount /mnt/leak
        done
    done
    echo kept > $RESULTS/kept
"""
KERNELS_PLACE = """
    import ctypes, os, signal, socket
    libc = ctypes.CDLL(None, use_errno=True)
    def attempt(what, action):
        try:
            done = action()
        except OSError as error:
            print("held", what, error.strerror, flush=True)
        else:
            print("DONE" if done is None or done >= 0 else "held", what, flush=True)
    launcher, port = int(os.environ["LAUNCHER"]), int(os.environ["PORT"])
    attempt("kill", lambda: os.kill(launcher, 0))
    attempt("loopback", lambda: socket.create_connection(("127.0.0.1", port)).close())
    attempt("netlink", lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0).close())
    def abstract():
        with socket.socket(socket.AF_UNIX) as local:
            local.connect(chr(0) + os.environ["ABSTRACT"])
    attempt("abstract socket", abstract)
    for name, number, arguments in (
        ("user namespace", 272, (0x10000000,)), ("mount", 165, (b"none", b"/mnt", b"tmpfs", 0, None)),
        ("chroot", 161, (b"/tmp",)), ("setns", 308, (0, 0)), ("bpf", 321, (0, None, 0)), ("io_uring", 425, (1, None)),
        ("keyctl", 250, (0, 0)), ("perf", 298, (None, 0, -1, -1, 0)), ("userfaultfd", 323, (0,)),
        ("pidfd", 434, (1, 0)), ("module", 313, (0, b"", 0)), ("reboot", 169, (0, 0, 0, 0)), ("setuid", 105, (0,)),
        ("clone into a namespace", 56, (0x10000000 | 17, 0, 0, 0, 0)), ("clone3", 435, (None, 0)),
        ("32-bit numbers", 0x40000000 | 39, ()),
    ):
        attempt(name, lambda: libc.syscall(number, *arguments))
    attempt("write the program", lambda: os.close(os.open("/usr/canary", os.O_CREAT | os.O_WRONLY)))
    attempt("read the secret", lambda: os.close(os.open(os.environ["SECRET"], os.O_RDONLY)))
    attempt("descriptors", lambda: max(number for number in range(3, 256) if is_open(number)) if any(
        is_open(number) for number in range(3, 256)) else -1)
    print("capabilities", libc.prctl(23, 21, 0, 0, 0), "uid", os.getuid(), flush=True)
"""


def _missing() -> str | None:
    if os.environ.get("ISL_EMU_GUEST"):
        return "a guest cannot boot another"
    try:
        find_uml()
    except MachineError as error:
        return str(error)
    return None


pytestmark = pytest.mark.skipif(_missing() is not None, reason=f"no guest kernel here: {_missing()}")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that other users may enter, with a secret in it that no scenario has to know."""
    with tempfile.TemporaryDirectory(prefix="isl-emu-test-") as name:
        path = Path(name)
        path.chmod(0o755)
        for below in ("run", "results"):
            (path / below).mkdir()
        (path / "secret").write_text("secret\n")
        (path / "secret").chmod(0o600)
        yield path


def test_root_in_the_guest_is_nobody_on_the_machine(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    environment = {
        "PROJECT": str(ROOT), "RESULTS": str(folder / "results"), "SECRET": str(folder / "secret"),
        "SECRET_FOLDER": str(folder), "LAUNCHER": str(os.getpid()), "PYTHON": sys.prefix,
    }  # fmt: skip
    run = RunDirectory("abc123", folder / "run")
    argv = ["sh", "-c", textwrap.dedent(HOSTFS)]
    status = run_in_guest(
        argv, run=run, writable=[folder / "results"], memory_byte=MEMORY_BYTE, environment=environment
    )
    said = capfd.readouterr().out.splitlines()
    assert status == 0
    assert [line for line in said if not line.startswith("held ")] == []
    assert len(said) > 20
    kept = folder / "results" / "kept"
    assert (kept.read_text(), kept.stat().st_uid) == ("kept\n", os.getuid())


def _behind_the_wall(folder: Path, source: str, environment: dict[str, str], seen: list[Path]) -> list[str]:
    """What a Python program says in the place of the guest's kernel."""
    control = folder / "run" / "guest"
    control.mkdir()
    view = view_of_machine([Path(sys.prefix), *seen], [control], MEMORY_BYTE)
    helper = """
import os
def is_open(number):
    try: os.fstat(number)
    except OSError: return False
    return True
"""
    program = os.path.realpath(sys.executable)
    Order(0, [program, "-I", "-c", helper + textwrap.dedent(source)], environment, [], view).write(control)
    ours, lifeline = os.pipe()
    words = [sys.executable, "-I", "-S", "-c", GUARDIAN, str(ours)]
    with open("/sys/devices/system/cpu/present") as leak:
        answer = subprocess.run(
            words, cwd=control, pass_fds=(ours, leak.fileno()), capture_output=True, text=True, timeout=60, check=False
        )
    os.close(ours)
    os.close(lifeline)
    assert (control / "refused").read_text() == ""
    assert answer.returncode == 0, answer.stderr + answer.stdout
    shutil.rmtree(control)
    return answer.stdout.splitlines()


GUARDIAN = f"""import sys
sys.path.append({str(ROOT)!r})
from isl_emu.machine.guardian import main
sys.exit(main(int(sys.argv[1])))
"""


@pytest.mark.parametrize("seen", [[], [Path("/proc/version")]], ids=["as nobody", "in a user namespace"])
def test_the_guests_kernel_itself_can_do_nothing_else(folder: Path, seen: list[Path]) -> None:
    """A file system without id-mapped mounts, as /proc is one, makes it run in a user namespace."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as local:
        local.bind(f"\0isl-emu-test-{os.getpid()}")
        local.listen()
        environment = {
            "LAUNCHER": str(os.getpid()), "PORT": str(server.getsockname()[1]), "SECRET": str(folder / "secret"),
            "ABSTRACT": f"isl-emu-test-{os.getpid()}",
        }  # fmt: skip
        *said, rights = _behind_the_wall(folder, KERNELS_PLACE, environment, seen)
    assert [line for line in said if not line.startswith("held ")] == []
    assert len(said) == 23
    assert rights.startswith("capabilities 0")
    assert rights.endswith(f"uid {NOBODY if os.getuid() == 0 and not seen else 0}")


def test_all_behind_the_wall_ends_with_the_guardian(folder: Path) -> None:
    control = folder / "run" / "guest"
    control.mkdir()
    program = os.path.realpath(sys.executable)
    sleeping = "import os, time; os.fork(); os.fork(); print('there', flush=True); time.sleep(600)"
    view = view_of_machine([Path(sys.prefix)], [control], MEMORY_BYTE)
    Order(0, [program, "-I", "-c", sleeping], {}, [], view).write(control)
    ours, lifeline = os.pipe()
    words = [sys.executable, "-I", "-S", "-c", GUARDIAN, str(ours)]
    process = subprocess.Popen(words, cwd=control, pass_fds=(ours,), stdout=subprocess.PIPE)
    assert process.stdout is not None
    for _ in range(4):
        assert process.stdout.readline() == b"there\n"
    process.send_signal(signal.SIGKILL)
    assert process.stdout.read() == b""  # which comes when the last of them has ended
    process.wait()
    process.stdout.close()
    os.close(ours)
    os.close(lifeline)


def test_a_home_is_not_shown() -> None:
    with pytest.raises(MachineError, match="somebody's home"):
        view_of_machine([Path.home().resolve()], [], MEMORY_BYTE)
