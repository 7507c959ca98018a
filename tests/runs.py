"""Whole runs as users make them: the command line, from outside."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).parents[1]
COMMAND = [sys.executable, "-m", "isl_emu"]
PATIENCE_S = 600  # only for telling a hang from a slow machine
INVALID = 3  # a crowded machine may distort a run; what most tests look at holds all the same
PYTORCH_MAPS = 150_000  # in a guest nearly each page of a program may be a mapping of the machine's
MAPS = int(Path("/proc/sys/vm/max_map_count").read_text())
needs_maps = pytest.mark.skipif(
    MAPS < PYTORCH_MAPS,
    reason=f"vm.max_map_count is {MAPS} here, but PyTorch with a model in a guest may need {PYTORCH_MAPS}",
)


def isl_emu(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """What a command answers, from the root of the checkout."""
    command = [*COMMAND, *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False)


def finished(scenario: str | Path, out: Path, *words: str, report: bool = False) -> str:
    """Run a scenario, of a file or of a text, to its end, and return what the command said."""
    if isinstance(scenario, str):
        path = out.parent / "scenario.toml"
        path.write_text(scenario)
        scenario = path
    done = isl_emu("run", scenario, *words, "--out", out, *([] if report else ["--no-report"]))
    assert done.returncode in (0, INVALID), done.stdout + done.stderr
    return done.stdout


def chapters(out: Path) -> list[str]:
    """The titles of the chapters of a run's report."""
    return re.findall(r'<h2 id="c\d+">(.*?)</h2>', (out / "report.html").read_text())


def rows(out: Path, table: str) -> list[dict[str, Any]]:
    """A table of a run."""
    return pq.read_table(out / f"{table}.parquet").to_pylist()


def wait_for(condition: Callable[[], object], what: str) -> None:
    """Wait until something has happened."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, f"{what} did not happen"
        time.sleep(0.1)
