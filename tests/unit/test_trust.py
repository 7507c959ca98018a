"""What a scenario may do is listed, refused and allowed by name."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from isl_emu import timebase
from isl_emu.cli import cli
from isl_emu.errors import MachineError, ScenarioError
from isl_emu.machine import functions, sandbox
from isl_emu.machine.functions import WalledFunction
from isl_emu.parts.part import files_named
from isl_emu.runs.process import module_command
from isl_emu.runs.wishes import Trust
from isl_emu.scenario.parse import load_scenario
from tests.scenarios import head, shell, table


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    """One of each that a scenario can have of its own."""
    text = head("strange", duration="2 s") + shell(4, 1, 0, lasers="ring")
    text += table("routing", policy="strange_policies:detour")
    text += table(
        "compute", satellites=["p00s00"], server="external", url="http://gpu.example:8000", key_variable="STRANGE_KEY"
    )
    text += table("[program]", name="traffic", node="p00s01", command=["iperf3", "-s"])
    text += table("[workload]", name="jobs", nodes=["p00s02"], function="strange_jobs:main")
    path = tmp_path / "strange.toml"
    path.write_text(text)
    return path


def test_check_lists_what_is_not_our_own(scenario: Path) -> None:
    done = CliRunner().invoke(cli, ["check", str(scenario)])
    assert [line for line in done.output.splitlines() if line.startswith("# ")] == [
        "# routing.policy: imports strange_policies:detour",
        "# workload.jobs.function: imports strange_jobs:main",
        "# program.traffic: runs iperf3 -s",
        "# compute[0].url: asks http://gpu.example:8000",
        "# compute[0].key_variable: sends it $STRANGE_KEY",
    ]


def test_no_programs_refuses_before_anything_is_imported(
    scenario: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "strange_policies.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    done = CliRunner().invoke(cli, ["run", "--no-programs", str(scenario), "--out", str(tmp_path / "out")])
    assert done.exit_code != 0
    assert "imports strange_policies:detour" in str(done.exception)
    assert not (tmp_path / "imported").exists()


def test_a_key_is_sent_only_if_it_is_allowed(scenario: Path) -> None:
    read = load_scenario(scenario)
    assert read.has_programs
    with pytest.raises(ScenarioError, match="add --allow-key STRANGE_KEY"):
        Trust().check(read.foreign, read.keys_sent)
    Trust(keys=("STRANGE_KEY",)).check(read.foreign, read.keys_sent)


@pytest.mark.parametrize("words", [["-m", "isl_emu", "--version"], module_command("isl_emu", "--version")[1:]])
def test_what_lies_in_the_current_folder_is_not_taken_for_pythons_own(words: list[str], tmp_path: Path) -> None:
    for name in ("random", "json", "numpy", "click", "tempfile"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong one')")
    done = subprocess.run([sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "isl-emu" in done.stdout


# Ways out of the wall, each a function that is asked while planning; whether it came through is its answer.
FUNCTIONS = """
import ctypes, os, signal, socket, subprocess, sys, time
import numpy as np
from isl_emu.routing.policies import shortest_delay

libc, TOP = ctypes.CDLL(None, use_errno=True), os.path.dirname(os.path.abspath(__file__))

def came_through(action):
    try:
        done = action()
    except (OSError, subprocess.SubprocessError) as error:
        print("held", error)
        return 0
    return int(not isinstance(done, int) or done >= 0)

def policy(plan, k, destinations, before):
    if k == 0:
        print("asked for the first time\\x1b[2J")
    return shortest_delay(plan, k, destinations, before)

def tries(pid, port):
    def write(path):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT))
    listening = lambda: socket.create_connection(("127.0.0.1", port)).close()
    folders = [name for name in range(3, 99) if os.path.isdir(f"/proc/self/fd/{name}")]
    return np.array([came_through(action) for action in (
        lambda: write(TOP + "/canary"), lambda: write("/usr/canary"), lambda: write("/tmp/isl-emu-canary"),
        lambda: open(os.environ.get("SECRET", "/etc/shadow")).close(), lambda: os.listdir("/root"),
        lambda: os.listdir("/home"), lambda: os.kill(pid, 0), lambda: os.kill(pid, signal.SIGKILL), listening,
        lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1).close(), lambda: os.listdir(f"/proc/{pid}"),
        lambda: subprocess.run(["true"]), lambda: os._exit(7) if os.fork() == 0 else 0,
        lambda: libc.unshare(0x10000000), lambda: libc.mount(b"none", b"/mnt", b"tmpfs", 0, None),
        lambda: libc.ptrace(16, pid, 0, 0), lambda: os.execv("/bin/true", ["true"]),
        lambda: open("/dev/tty").close(), lambda: os.setuid(0) if os.getuid() else -1,
        lambda: libc.syscall(321, 0, None, 0), lambda: libc.syscall(425, 1, None),
    )] + [len(folders)])

def objects():
    return np.array([object()])

def breaks():
    return {}[1]

def ends():
    os._exit(3)

def floods():
    for _ in range(99):
        os.write(1, b"\\0" * 9999)

def hoards():
    return bytearray(5 << 30)

def sleeps():
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    time.sleep(600)
"""


@pytest.fixture
def walled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., WalledFunction]:
    """A function of a stranger's behind the wall; skips where none can be."""
    (tmp_path / "stranger.py").write_text(FUNCTIONS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)

    def load(name: str, arguments: int = 0) -> WalledFunction:
        try:
            return WalledFunction(f"stranger:{name}", "routing.policy", arguments)
        except MachineError as error:
            pytest.skip(str(error))

    return load


def test_a_function_asked_while_planning_is_behind_the_wall(
    walled: Callable[..., WalledFunction], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path.parent / "isl-emu-secret"
    secret.write_text("secret")
    monkeypatch.setenv("SECRET", str(secret))
    with socket.create_server(("127.0.0.1", 0)) as server:
        came_through = walled("tries", 2)(os.getpid(), server.getsockname()[1])
    assert came_through.tolist() == [0] * 22
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("objects", "returned a ndarray that is no array of numbers"),
        ("breaks", "failed in line .* of .*stranger.py: KeyError"),
        ("ends", "ended its process"),
        ("floods", "OSError"),
        ("hoards", "failed in line .* of .*stranger.py: MemoryError"),
    ],
)
def test_what_a_function_does_wrong_is_told(walled: Callable[..., WalledFunction], name: str, told: str) -> None:
    with pytest.raises(ScenarioError, match=f"routing.policy: stranger:{name} .*{told}"):
        walled(name)()


def test_a_function_that_does_not_return_is_ended(
    walled: Callable[..., WalledFunction], monkeypatch: pytest.MonkeyPatch
) -> None:
    function = walled("sleeps")
    monkeypatch.setattr(timebase, "LIMIT_S", 0.1)
    monkeypatch.setattr(functions, "PATIENCE_S", 0.1)
    with pytest.raises(ScenarioError, match="did not return within 0 s of computing"):
        function()


def test_a_plan_with_a_walled_policy_is_the_same(
    walled: Callable[..., WalledFunction], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    walled("policy", 4)
    text = head("strange", duration="4 s") + shell(12, 1, 0, lasers="ring")
    text += table("routing", policy="stranger:policy")
    (tmp_path / "strange.toml").write_text(text)
    plain = tmp_path / "plain.toml"
    plain.write_text(text.replace("stranger:policy", "shortest-delay"))
    words = ["path", "--at", "2s", "SCENARIO", "p00s00", "p00s02"]
    found = {}
    for name in ("strange.toml", "plain.toml", "--trust"):
        own = [name.replace("--trust", "strange.toml") if word == "SCENARIO" else word for word in words]
        done = subprocess.run(
            [*module_command("isl_emu", *own), *(["--trust"] if name == "--trust" else [])],
            cwd=tmp_path, capture_output=True, text=True, check=True,
        )  # fmt: skip
        found[name] = done.stdout.replace("asked for the first time\x1b[2J\n", "")
        assert ("asked for the first time[2J\n" in done.stderr) == (name == "strange.toml")
    assert found["strange.toml"] == found["plain.toml"] == found["--trust"]


def test_a_scenario_shows_its_programs_no_file_that_is_not_for_everybody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, closed = tmp_path / "here", tmp_path / "closed"
    for folder in (here, closed):
        folder.mkdir()
    closed.chmod(0o700)
    for path in (here / "own", closed / "secret", closed / "weights"):
        path.write_text("GGUF" if path.name == "weights" else path.name)
    (here / "link").symlink_to(closed / "secret")
    monkeypatch.chdir(here)
    Trust().check_files([here, here / "own", Path("own"), closed / "weights", Path("/etc/passwd"), Path("/bin/sh")])
    for path in (closed / "secret", here / "link"):
        with pytest.raises(ScenarioError, match="not every user of this machine may; copy it"):
            Trust().check_files([path])
        Trust(all=True).check_files([path])


def test_a_program_of_the_machines_goes_before_one_in_a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shims = tmp_path / "shims"
    shims.mkdir()
    shims.chmod(0o700)
    for name in ("sh", "only-here"):
        (shims / name).write_text("#!/nowhere\n")
        (shims / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(shims), prepend=os.pathsep)
    assert [str(path) for path in files_named(["sh"])] == ["/bin/sh"]
    assert files_named(["only-here"]) == (shims / "only-here",)
    assert files_named([str(shims / "sh")]) == (shims / "sh",)


def test_a_copy_that_dies_at_once_is_an_error_and_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a library ends each copy of a process that has threads."""
    monkeypatch.setattr(sandbox, "libc", SimpleNamespace(unshare=lambda _: os._exit(1)))
    with pytest.raises(PermissionError, match="a user namespace cannot be made"):
        sandbox._user_namespace(0, 0)


def test_a_function_is_asked_also_beside_a_library_that_looks_after_copies_of_its_process(tmp_path: Path) -> None:
    """Arrow's reader of CSV keeps a pipe, closes it in each copy of the process, and ends one in which that fails."""
    (tmp_path / "numbers.csv").write_text("a\n1\n")
    code = f"""if True:
        import pyarrow.csv
        pyarrow.csv.read_csv({str(tmp_path / "numbers.csv")!r})
        from isl_emu.machine.functions import WalledFunction
        print(WalledFunction("isl_emu.routing.policies:shortest_delay", "routing.policy", 4))
    """
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=100)
    assert "WalledFunction" in done.stdout, done.stderr
