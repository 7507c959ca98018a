"""The documentation builds without a warning, and what it tells people to do works: tutorial, notebook, man page."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import pytest

from isl_emu.cli import cli

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def _blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)


def test_it_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("sphinx", reason="scripts/setup docs brings what makes the documentation")
    words = ["--fail-on-warning", "--keep-going", "--quiet", "-b", "html", str(DOCS), str(tmp_path)]
    built = subprocess.run([sys.executable, "-m", "sphinx", *words], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    keys = (tmp_path / "keys.html").read_text(encoding="utf-8")
    assert "grazing_altitude" in keys
    assert "<p>see there" not in keys  # every key says what it holds


def test_every_page_is_reached_from_the_first() -> None:
    listed = set((DOCS / "index.md").read_text(encoding="utf-8").split())
    assert {path.stem for path in DOCS.glob("*.md")} - {"index", "keys"} <= listed


def test_the_man_page_has_every_command_and_option() -> None:
    page = (DOCS / "isl-emu.1").read_text(encoding="utf-8").replace("\\-", "-")
    for name, command in cli.commands.items():
        if not command.hidden:
            assert f"isl-emu {name}" in page, "`scripts/docs man` writes it anew"
            for option in (option for param in command.params for option in param.opts if option.startswith("--")):
                assert option in page, f"{name} {option}: `scripts/docs man` writes the page anew"


def test_the_notebook_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    mpl.use("Agg")
    cells = json.loads((DOCS / "examples" / "planning.ipynb").read_text(encoding="utf-8"))["cells"]
    names: dict[str, object] = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            assert not cell["outputs"]  # it is kept without what one machine printed
            exec(compile("".join(cell["source"]), "planning.ipynb", "exec"), names)
    assert (tmp_path / "ring.plan.parquet").exists()
    assert json.loads((tmp_path / "ring.czml").read_text())


@pytest.mark.emulation
def test_the_tutorial_works(tmp_path: Path) -> None:
    page = (DOCS / "tutorial.md").read_text(encoding="utf-8")
    first, fault = _blocks(page, "toml")
    (tmp_path / "first.toml").write_text(first)
    (tmp_path / "broken.toml").write_text(f"{first}\n{fault}")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for line in (line for block in _blocks(page, "sh") for line in block.splitlines()):
        argv = [sys.executable, "-m", "isl_emu", *shlex.split(line)[1:]]
        done = subprocess.run(argv, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (line, done.stdout, done.stderr)
    (python,) = _blocks(page, "python")
    argv = [sys.executable, "-c", python]
    said = subprocess.run(argv, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert said.stdout == "4 of 60 probes were lost\n[3, 5] hops\n"


@pytest.mark.emulation
def test_published_round_trips_are_measured_by_packets(tmp_path: Path) -> None:
    """The first rows of the page's table, to the digit: exact time has no other result."""
    argv = [sys.executable, str(DOCS / "reproduce" / "hypatia_rtt.py"), "--out", str(tmp_path), "--duration", "19 s"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    printed = subprocess.run(argv, env=environment, capture_output=True, text=True, check=True).stdout
    rows = re.findall(r"^ +(\d+) +(\S+) +(\S+) +(\S+)$", printed, flags=re.MULTILINE)
    page = (DOCS / "reproduce.md").read_text(encoding="utf-8")
    assert [row[0] for row in rows] == ["0", "10", "18"]
    assert all(f"| {' | '.join(row)} |" in page for row in rows)
    assert all(abs(float(difference_us)) < 5 for *_, difference_us in rows)
