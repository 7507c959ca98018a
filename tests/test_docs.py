"""What docs/plan.md tells people to type works: every command and every piece of Python, in an empty folder.

And the proofs that docs/exact.md names are there.
"""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from isl_emu import api
from isl_emu.cli import cli
from isl_emu.export.formats import FORMATS
from isl_emu.linkplan.tables import contacts_table, events_table, links_table
from tests.golden.test_exports import small_plan

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "plan.md").read_text(encoding="utf-8")


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder with nothing but the shipped scenarios."""
    shutil.copytree(ROOT / "topologies", tmp_path / "topologies")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_commands_work(folder):
    lines = [line for block in _blocks("sh") for line in block.splitlines()]
    assert lines
    for line in lines:
        program, *arguments = shlex.split(line)
        assert program == "isl-emu"
        result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
        assert result.exit_code == 0, (line, result.output)
        for name in re.findall(r"--out (\S+)", line):
            assert (folder / name).exists(), line


def test_the_python_works(folder):
    blocks = _blocks("python")
    assert blocks
    for block in blocks:
        exec(compile(block, "docs/plan.md", "exec"), {})
    assert (folder / "kuiper-pictures" / "map.png").exists()


@pytest.mark.parametrize("table", [links_table, contacts_table, events_table])
def test_every_column_of_the_tables_is_documented(table):
    for name in table(small_plan().link_plan).schema.names:
        assert f"`{name}`" in PAGE


def test_every_format_and_every_public_member_of_a_plan_is_documented():
    members = [name for name in vars(api.Plan) if not name.startswith("_") and name not in {"index", "digest"}]
    for name in (*members, *FORMATS):
        assert f"plan.{name}" in PAGE or f"`{name}`" in PAGE, name


def test_what_proves_exact_time_is_there():
    page = (ROOT / "docs" / "exact.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(test_\w+)`", page))
    tests = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_exact*.py"))
    for beside in ("emulation/test_board_time.py", "unit/results/test_fidelity.py"):
        tests += (ROOT / "tests" / beside).read_text(encoding="utf-8")
    assert len(named) > 10
    assert named <= set(re.findall(r"^def (test_\w+)\(", tests, flags=re.MULTILINE))
    patches = [path.stem.replace("-", " ") for path in sorted((ROOT / "isl_emu/machine/kernel/patches").iterdir())]
    assert re.findall(r"^\| (\d [a-z -]+) \|", page, flags=re.MULTILINE) == patches
