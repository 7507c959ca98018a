"""Files of programs in nodes: kept in the results, or told of; commands and copies from a second terminal."""

from __future__ import annotations

import os
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.runs import COMMAND, PATIENCE_S, ROOT, wait_for
from tests.scenarios import head, shell

pytestmark = pytest.mark.emulation

BIG_BYTE = 10_000_000  # several pieces
WRITER = "pwd; echo $ISL_EMU_OUT; echo relative > relative.txt; echo x > $ISL_EMU_OUT/named.txt; echo x > /tmp/gone"
SCENARIO = (
    head("files", start="2026-03-20T14:30:00Z", duration="300 s")
    + shell(8, altitude="1200 km", inclination="60 deg", lasers={"topology": "ring", "rate": "10 Gbit/s"})
    + f"""
[[station]]
name = "gs-oslo"
latitude = "60 deg"
longitude = "11 deg"
min_elevation = "5 deg"
uplink = "1 Gbit/s"
downlink = "1 Gbit/s"
[[program]]
name = "writer"
node = "p00s01"
command = ["sh", "-c", "{WRITER}"]
[[program]]
name = "station"
node = "gs-oslo"
command = ["sh", "client.sh", "input"]
[[workload]]
name = "noting"
function = "tests.user_workloads:noting_in_all"
nodes = ["p00s02", "p00s03"]
"""
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    (folder / "files.toml").write_text(SCENARIO)
    (folder / "client.sh").write_text("cat $ISL_EMU_HERE/input.txt > copied.txt; echo $1 >> copied.txt\n")
    (folder / "input.txt").write_text("from where it was called\n")
    (folder / "tests").symlink_to(ROOT / "tests")
    (folder / "big").write_bytes(os.urandom(BIG_BYTE))
    return folder


def isl_emu(folder: Path, *words: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [*COMMAND, *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, cwd=folder, env=environment, input=given, capture_output=True, timeout=PATIENCE_S, check=False
    )


@pytest.fixture(scope="module")
def done(folder: Path) -> Path:
    """The results of a run in which files were written, and to which a second terminal talked."""
    out, environment = folder / "out", {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [*COMMAND, "run", "files.toml", "--pace", "1", "--out", "out"]
    with ExitStack() as undo:
        run = undo.enter_context(
            subprocess.Popen(
                command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
        )
        undo.callback(run.terminate)
        wait_for(lambda: run.poll() is not None or _programs_have_ended(folder), "the programs' end")
        talk(folder)
        assert isl_emu(folder, "stop", "--run", "out").returncode == 0
        output, _ = run.communicate(timeout=PATIENCE_S)
    assert run.returncode == 0, output
    return out


def _programs_have_ended(folder: Path) -> bool:
    return b"programs: 0 running, 2 ended" in isl_emu(folder, "status", "--run", "out").stdout


def talk(folder: Path) -> None:
    """Commands and copies, in a node that has a container and in one that has none."""
    big = (folder / "big").read_bytes()
    for node in ("p00s01", "p00s00"):

        def run(*words: str, given: bytes = b"", node: str = node) -> subprocess.CompletedProcess[bytes]:
            return isl_emu(folder, "exec", "--run", "out", node, "--", *words, given=given)

        def cp(source: str, target: str) -> subprocess.CompletedProcess[bytes]:
            return isl_emu(folder, "cp", "--run", "out", source, target)

        assert run("sh", given=b"exit 7").returncode == 7
        missing = run("no-such-program")
        assert (missing.returncode, missing.stdout) == (127, b"") and b"no-such-program" in missing.stderr
        assert run("sh", "-c", "kill -9 $$").returncode == 128 + 9
        assert run("pwd").stdout.decode() == f"{folder}/out/files/{node}\n"
        pushed = run("sh", "-c", "cat > pushed; echo said; echo told >&2", given=big)
        assert (pushed.stdout, pushed.stderr) == (b"said\n", b"told\n")
        assert run("cat", "pushed").stdout == big
        assert cp("big", f"{node}:/tmp/copied").returncode == 0
        assert cp(f"{node}:/tmp/copied", f"back-{node}").returncode == 0
        assert (folder / f"back-{node}").read_bytes() == big
        assert b"no such folder" in cp("big", f"{node}:/no/such/").stderr
        lost = cp(f"{node}:/no-such-file", "back")
        assert lost.returncode == 1 and b"/no-such-file" in lost.stderr


def test_what_programs_write_in_their_folder_is_kept(done: Path) -> None:
    files = done / "files"
    assert (files / "p00s01" / "relative.txt").read_text() == "relative\n"
    assert (files / "p00s01" / "named.txt").read_text() == "x\n"
    assert (done / "programs" / "writer.log").read_text().splitlines() == [str(files / "p00s01")] * 2
    assert (files / "gs-oslo" / "copied.txt").read_text() == "from where it was called\ninput\n"
    for node in ("p00s02", "p00s03"):
        assert (files / node / "noted.txt").read_text() == f"{files / node}\n"


def test_what_is_lost_is_told(done: Path) -> None:
    lost = [" ".join(line.split()) for line in (done / "summary.txt").read_text().splitlines() if "LOST" in line]
    told = "LOST with the run, as not in $ISL_EMU_OUT:"
    assert f"p00s01 {told} /tmp/copied, /tmp/gone" in lost
    if "ran in the guest" in (done / "summary.txt").read_text():
        assert f"nodes without a container {told} /tmp/copied" in lost
    assert not [line for line in lost if line.startswith(("p00s02", "p00s03", "gs-oslo"))]


def test_what_a_second_terminal_wrote_is_kept_too(done: Path, folder: Path) -> None:
    for node in ("p00s00", "p00s01"):
        assert (done / "files" / node / "pushed").read_bytes() == (folder / "big").read_bytes()
    assert not (done / "files" / "p00s04").exists()
