"""Real boots of the guest kernel, driven from outside as `isl-emu run` does (so not marked `kernel`)."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

from isl_emu.errors import MachineError
from isl_emu.machine.guest import clean_guest, run_in_guest
from isl_emu.machine.uml import find_uml
from isl_emu.runs.directory import RunDirectory

MEMORY_BYTE = 512 << 20
BOOTED_WITHIN_S = 60
NOBODYS = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "PYTHONPATH": str(Path(__file__).resolve().parents[2])}


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
def tmp_path() -> Iterator[Path]:
    """A folder that other users may enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="isl-emu-test-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunDirectory]:
    directory = RunDirectory("abc123", tmp_path / "run")
    directory.path.mkdir()
    yield directory
    clean_guest(directory)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    folder.mkdir()
    return folder


def _program(run: RunDirectory, results: Path, argv: list[str], interactive=False, trusted=False) -> list[str]:
    """A Python command that runs argv in a guest, for tests that need a process of their own around it."""
    source = f"""
        import sys
        from pathlib import Path
        from isl_emu.machine.guest import run_in_guest
        from isl_emu.runs.directory import RunDirectory
        sys.exit(run_in_guest({argv!r}, run=RunDirectory({run.run_id!r}, Path({str(run.path)!r})),
                              writable=[Path({str(results)!r})], memory_byte={MEMORY_BYTE}, interactive={interactive},
                              trusted={trusted}))
    """
    return [sys.executable, "-c", textwrap.dedent(source)]


def _guest_processes(run: RunDirectory) -> list[str]:
    folder = str(run.path / "guest")
    found = []
    for entry in Path("/proc").glob("[0-9]*/cwd"):
        try:
            found += [str(entry)] if os.readlink(entry).startswith(folder) else []
        except OSError:
            continue
    return found


def _wait_for(process: pexpect.spawn, text: str) -> None:
    process.expect_exact(text, timeout=BOOTED_WITHIN_S)


def test_status_of_the_command_is_returned_and_nothing_is_left(run, results, capfd):
    status = run_in_guest(["sh", "-c", "exit 7"], run=run, writable=[results], memory_byte=MEMORY_BYTE)
    assert status == 7
    assert _guest_processes(run) == []
    assert list(run.path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
@pytest.mark.parametrize("trusted", [False, True])
def test_it_boots_where_nothing_in_its_folder_may_be_executed(run, results, trusted):
    """As in /run of Debian and Ubuntu under systemd."""
    program = _program(run, results, ["sh", "-c", "exit 7"], trusted=trusted)
    mount = 'mount -t tmpfs -o noexec tmpfs "$0" && exec "$@"'
    apart = ["unshare", "--mount", "--propagation", "private", "sh", "-c", mount, str(run.path)]
    assert subprocess.run([*apart, *program], check=False).returncode == 7


def test_output_arrives_byte_for_byte_and_without_kernel_messages(run, results, capfdbinary):
    script = r"seq 1 20000; printf 'a\tb\r\nlast'; echo error >&2"
    run_in_guest(["sh", "-c", script], run=run, writable=[results], memory_byte=MEMORY_BYTE)
    expected = "".join(f"{number}\n" for number in range(1, 20001)) + "a\tb\r\nlasterror\n"
    assert capfdbinary.readouterr().out == expected.encode()


def test_the_command_is_root_in_a_kernel_with_netem(run, results, capfd):
    script = "id -u; ip netns add far; tc qdisc add dev lo root netem delay 5ms; tc qdisc"
    assert run_in_guest(["sh", "-c", script], run=run, writable=[results], memory_byte=MEMORY_BYTE) == 0
    output = capfd.readouterr().out
    assert output.startswith("0\n")
    assert "qdisc netem" in output


def test_only_writable_folders_reach_the_disk(run, results, tmp_path, capfd):
    folder = results / "with space, comma and 'quote'"
    folder.mkdir()
    script = f'echo kept > "$1/kept"; echo lost > {tmp_path}/lost; cat {tmp_path}/lost'
    argv = ["sh", "-c", script, "sh", str(folder)]
    run_in_guest(argv, run=run, writable=[folder, results, folder], memory_byte=MEMORY_BYTE)
    assert (folder / "kept").read_text() == "kept\n"
    assert not (tmp_path / "lost").exists()
    assert capfd.readouterr().out == "lost\n"


def test_current_folder_and_environment_are_passed_on(run, results, capfd, monkeypatch):
    folder = results / "a b"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("NO_COLOR", "1")
    script = 'pwd; echo "$NO_COLOR $ISL_EMU_GUEST $EXTRA"; test -t 1 || echo "no terminal"'
    run_in_guest(
        ["sh", "-c", script],
        run=run,
        writable=[results],
        memory_byte=MEMORY_BYTE,
        environment={"EXTRA": 'it\'s "so"'},
    )
    assert capfd.readouterr().out == f'{folder}\n1 1 it\'s "so"\nno terminal\n'


def test_a_folder_under_dev_shm_is_seen(run, results, capfd):
    folder = Path("/dev/shm") / f"isl-emu-test-{os.getpid()}"
    folder.mkdir()
    try:
        (folder / "model").write_text("weights\n")
        argv = ["cat", str(folder / "model")]
        run_in_guest(argv, run=run, writable=[results], memory_byte=MEMORY_BYTE, readable=[folder / "model"])
    finally:
        shutil.rmtree(folder)
    assert capfd.readouterr().out == "weights\n"


def test_a_dying_guest_kernel_is_an_error_with_its_last_words(run, results, capfd):
    script = "echo before; echo c > /proc/sysrq-trigger; sleep 60"
    with pytest.raises(MachineError, match="(?s)died while the command ran.*sysrq"):
        run_in_guest(["sh", "-c", script], run=run, writable=[results], memory_byte=MEMORY_BYTE)
    assert _guest_processes(run) == []


def test_a_guest_that_cannot_start_says_why(run, results, capfd):
    with pytest.raises(MachineError, match="(?s)did not start.*emory"):
        run_in_guest(["true"], run=run, writable=[results], memory_byte=8 << 20)
    assert _guest_processes(run) == []


def test_sigint_reaches_the_command_and_its_own_status_is_returned(run, results):
    script = "trap 'echo caught; exit 9' INT; echo ready; while :; do sleep 0.1; done"
    process = pexpect.spawn(*_split(_program(run, results, ["sh", "-c", script])))
    _wait_for(process, "ready\r\n")
    process.kill(signal.SIGINT)
    _wait_for(process, "caught\r\n")
    process.expect(pexpect.EOF, timeout=BOOTED_WITHIN_S)
    assert _exit_status(process) == 9


def test_control_c_at_the_terminal_raises_keyboard_interrupt_in_the_command(run, results):
    script = "import time\ntry:\n print('ready', flush=True); time.sleep(99)\nexcept KeyboardInterrupt: print('caught')"
    process = pexpect.spawn(*_split(_program(run, results, [sys.executable, "-c", script])))
    _wait_for(process, "ready\r\n")
    process.sendcontrol("c")
    _wait_for(process, "caught\r\n")
    process.expect(pexpect.EOF, timeout=BOOTED_WITHIN_S)
    assert _exit_status(process) == 0


def test_a_second_interrupt_kills_a_deaf_command(run, results):
    script = "trap '' INT; echo ready; while :; do sleep 0.1; done"
    process = pexpect.spawn(*_split(_program(run, results, ["sh", "-c", script])))
    _wait_for(process, "ready\r\n")
    process.kill(signal.SIGINT)
    process.kill(signal.SIGTERM)
    process.expect(pexpect.EOF, timeout=BOOTED_WITHIN_S)
    assert _exit_status(process) == 130
    assert _guest_processes(run) == []


def test_an_interactive_command_has_a_terminal_of_our_size(run, results):
    script = 'stty size; read -r line; echo "got $line"; exec cat'
    program = _program(run, results, ["sh", "-c", script], interactive=True)
    process = pexpect.spawn(*_split(program), dimensions=(33, 101))
    _wait_for(process, "33 101\r\n")
    process.sendline("words")
    _wait_for(process, "words\r\ngot words\r\n")
    process.sendcontrol("c")
    process.expect(pexpect.EOF, timeout=BOOTED_WITHIN_S)
    assert _exit_status(process) == 128 + signal.SIGINT


def test_nothing_outlives_a_killed_owner(run, results):
    process = pexpect.spawn(*_split(_program(run, results, ["sh", "-c", "echo ready; sleep 99"])))
    _wait_for(process, "ready\r\n")
    guardian = _guardian(run)
    process.kill(signal.SIGKILL)
    ended = os.pidfd_open(guardian)
    _wait_readable(ended)
    assert _guest_processes(run) == []


def test_nothing_outlives_a_killed_guardian(run, results):
    process = pexpect.spawn(*_split(_program(run, results, ["sh", "-c", "echo ready; sleep 99"])))
    _wait_for(process, "ready\r\n")
    process.kill(signal.SIGSTOP)
    os.kill(_guardian(run), signal.SIGKILL)
    give_up_s = time.monotonic() + BOOTED_WITHIN_S
    while _guest_processes(run) and time.monotonic() < give_up_s:
        time.sleep(0.01)
    process.kill(signal.SIGKILL)
    assert _guest_processes(run) == []


def test_clean_guest_kills_what_a_killed_guardian_left_without_a_wall(run, results):
    program = _program(run, results, ["sh", "-c", "echo ready; sleep 99"], trusted=True)
    process = pexpect.spawn(*_split(program))
    _wait_for(process, "ready\r\n")
    process.kill(signal.SIGSTOP)
    os.kill(_guardian(run), signal.SIGKILL)
    process.kill(signal.SIGKILL)
    clean_guest(run)
    assert _guest_processes(run) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_without_root(run, results):
    as_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"]
    for folder in (run.path, results):
        os.chown(folder, 65534, 65534)
    script = "id -u; echo done > result; tc qdisc add dev lo root netem && echo netem"
    program = _program(run, results, ["sh", "-c", script])
    program[0] = "/usr/bin/python3"
    if subprocess.run([*as_nobody, *program[:1], "-c", "import isl_emu"], env=NOBODYS, check=False).returncode:
        pytest.skip("another user can read neither this checkout nor /usr/bin/python3")
    answer = subprocess.run(as_nobody + program, env=NOBODYS, capture_output=True, text=True, cwd=results, check=False)
    assert (answer.stdout, answer.returncode) == ("0\nnetem\n", 0), answer.stderr
    assert (results / "result").stat().st_uid == 65534


def _split(argv: list[str]) -> tuple[str, list[str]]:
    return argv[0], argv[1:]


def _exit_status(process: pexpect.spawn) -> int | None:
    process.close()
    return process.exitstatus


def _guardian(run: RunDirectory) -> int:
    """Of the processes in the guest's folder the one whose parent is not among them."""
    pids = {int(entry.split("/")[2]) for entry in _guest_processes(run)}
    parents = {pid: int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]) for pid in pids}
    (guardian,) = (pid for pid, parent in parents.items() if parent not in pids)
    return guardian


def _wait_readable(descriptor: int) -> None:
    assert select.select([descriptor], [], [], BOOTED_WITHIN_S)[0], "the guardian is still there"
