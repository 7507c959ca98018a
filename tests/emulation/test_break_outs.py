"""A stranger's scenario tries every way out that we know, in each place where its code runs; the run goes on."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from isl_emu.nodes.namespaces import KEPT_CAPABILITIES
from tests.break_outs import BREAK_OUTS, HOSTFS
from tests.exact_guest import needs_exact_time
from tests.runs import COMMAND, PATIENCE_S, ROOT, wait_for
from tests.scenarios import head, shell, table

PLACES = "workload", "in_node", "popen"
RIGHTS = f"{sum(1 << number for number in KEPT_CAPABILITIES.values()):016x}"
pytestmark = [pytest.mark.emulation, needs_exact_time]

WORKLOAD = """
import contextlib, io, os, subprocess, sys

def policy(plan, k, destinations, before):
    try:
        open("policy-was-here", "w").close()
    except OSError:
        from isl_emu.routing.policies import shortest_delay
        return shortest_delay(plan, k, destinations, before)
    raise SystemExit("it came through")

def tries(context):
    sys.argv, source = ["", SECRET, *SEEN], open(os.path.join(os.path.dirname(__file__), "break_outs.py")).read()
    def run(place):
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            exec(compile(source, "break_outs.py", "exec"), {"__name__": "tries"})
        open(os.path.join(context.out, place), "w").write(said.getvalue())
    first, second = context.nodes
    run("workload.txt")
    context.in_node(second, run, "in_node.txt")
    with open(os.path.join(context.out, "popen.txt"), "w") as said:
        context.popen(second, [sys.executable, source_path(), *sys.argv[1:]], stdout=said).wait()

def source_path():
    return os.path.join(os.path.dirname(__file__), "break_outs.py")
"""


def _has_ended(path: Path) -> bool:
    return path.exists() and "rights [" in path.read_text()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the scenario, beside a secret that is none of its business."""
    folder = tmp_path_factory.mktemp("around") / "stranger"
    folder.mkdir()
    (folder.parent / "secret").write_text("secret")
    seen = [str(folder.parent / "secret"), *ROOT.parts]
    (folder / "break_outs.py").write_text(BREAK_OUTS)
    (folder / "stranger.py").write_text(f"SECRET, *SEEN = {seen}\n{WORKLOAD}")
    text = head("stranger", start="2026-03-20T14:30:00Z", duration="300 s")
    text += shell(8, altitude="1200 km", inclination="60 deg", lasers={"topology": "ring", "rate": "10 Gbit/s"})
    text += table("routing", policy="stranger:policy")
    (folder / "tries.py").write_text(f"import sys\nsys.argv += {seen}\n{BREAK_OUTS}")
    text += table("[program]", name="tries", node="p00s01", command=[sys.executable, "tries.py"])
    text += table("[workload]", name="tries-too", nodes=["p00s02", "p00s03"], function="stranger:tries")
    (folder / "stranger.toml").write_text(text)
    return folder


def test_nobody_gets_out(folder: Path) -> None:
    out, environment = folder / "out", {**os.environ, "PYTHONPATH": str(ROOT)}
    where = {
        "PROJECT": ROOT, "RESULTS": out, "SECRET": folder.parent / "secret", "SECRET_FOLDER": folder.parent,
        "LAUNCHER": os.getpid(), "PYTHON": sys.prefix,
    }  # fmt: skip

    def start(*words: str) -> subprocess.Popen[str]:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        return subprocess.Popen([*COMMAND, *words], cwd=folder, env=environment, text=True, **pipes)

    run = start("run", "stranger.toml", "--pace", "4", "--out", "out")
    with ExitStack() as undo:
        undo.callback(run.terminate)
        said = [out / "programs" / "tries.log", *(out / "files" / "p00s02" / f"{name}.txt" for name in PLACES)]
        wait_for(lambda: run.poll() is not None or all(_has_ended(path) for path in said), "the end of the tries")
        words = [f"{name}={value}" for name, value in where.items()]
        own = start("exec", "--run", "out", "p00s01", "--", "env", *words, "sh", "-c", HOSTFS)
        by_hand = own.communicate(timeout=PATIENCE_S)[0].splitlines()
        assert start("stop", "--run", "out").wait(PATIENCE_S) == 0
        undo.pop_all()
    printed = run.communicate(timeout=PATIENCE_S)[0]
    assert run.returncode == 0, printed
    assert [line for line in by_hand if not line.startswith("held ")] == []
    assert len(by_hand) > 20
    for path in said:
        *tried, rights = path.read_text().splitlines()
        assert "\n".join(line for line in tried if not line.startswith("held ")) == "", path
        assert len(tried) > 110
        assert rights == f"rights {[RIGHTS, RIGHTS]}"
    assert "held stop the run's clock" in said[1].read_text()
    assert not (out / "incidents.parquet").exists()
    assert out.stat().st_mode & 0o777 == 0o700
    assert not (folder / "policy-was-here").exists()
