"""The examples of docs/examples.md do what they say, on their smallest setting."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.exact_guest import needs_exact_time
from tests.own_part import OwnHouse
from tests.runs import INVALID, PATIENCE_S, ROOT, needs_maps, rows

pytestmark = pytest.mark.emulation


def _quick(name: str, out: Path) -> list[dict]:
    """The points of an example's quick sweep; its picture exists."""
    points = _quick_points(name, out)
    assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    return points


def _quick_points(name: str, out: Path) -> list[dict]:
    script = ROOT / "docs" / "examples" / f"{name}.py"
    subprocess.run([sys.executable, script, "--out", out, "--quick"], cwd=ROOT, check=True, timeout=PATIENCE_S)
    return rows(out, "points")


def test_answers_come_in_time_where_there_is_a_path(tmp_path):
    (point,) = _quick("deadline_and_stations", tmp_path / "out")
    assert point["planned_ratio"] == 1.0
    assert 0 < point["in_time"] <= point["asked"]


def test_a_step_takes_longer_than_the_plan_allows_at_least(tmp_path):
    (point,) = _quick("training_and_plane_spacing", tmp_path / "out")
    assert point["steps"] > 1
    assert point["step_s"] > point["compute_s"] + point["predicted_sum_s"]


def test_flipped_bits_cost_answers(tmp_path):
    intact, damaged = _quick_points("radiation", tmp_path / "out")
    page = (ROOT / "docs" / "radiation.md").read_text()
    ((perplexity, right),) = re.findall(r"^\| 0 \| ([\d.]+) \([^)]*\) \| (\d+) ", page, flags=re.MULTILINE)
    assert intact["flips"] == 0
    assert intact["perplexity"] == pytest.approx(float(perplexity), rel=0.01)  # another processor sums in another order
    assert intact["right"] == int(right)
    assert damaged["flips"] == 300_000
    assert damaged["served"]  # damaged, it still answers
    assert damaged["perplexity"] > 100 * intact["perplexity"]
    assert damaged["right"] < intact["right"] / 2
    assert not list((tmp_path / "out").glob("*.gguf"))


@needs_exact_time
def test_the_openai_client_measures_what_we_do(tmp_path):
    """To the digits of the page: exact time has no other result."""
    pytest.importorskip("openai", reason="the extra clients brings it")
    script = ROOT / "docs" / "examples" / "clients.py"
    words = [sys.executable, script, "--out", tmp_path]
    done = subprocess.run(words, cwd=ROOT, check=True, timeout=PATIENCE_S, capture_output=True, text=True)
    found = re.findall(r"^(TTFT|ITL|E2E) +(\S+) +(\S+) +(\S+)$", done.stdout, flags=re.MULTILINE)
    page = (ROOT / "docs" / "clients.md").read_text()
    assert [row[0] for row in found] == ["TTFT", "ITL", "E2E"]
    for label, theirs, ours, apart in found:
        assert f"| {label} | {theirs} | {ours} |" in page
        assert float(apart) < 0.01
    assert re.search(r"^answer +640 +640 ", done.stdout, flags=re.MULTILINE)


@needs_exact_time
def test_the_openai_client_has_users_of_ours_beside_it(tmp_path):
    """In one run; the more ask at once, the slower each token of both."""
    pytest.importorskip("openai", reason="the extra clients brings it")
    script = ROOT / "docs" / "examples" / "clients.py"
    words = [sys.executable, script, "--out", tmp_path, "--users", "4"]
    done = subprocess.run(words, cwd=ROOT, check=True, timeout=PATIENCE_S, capture_output=True, text=True)
    found = re.findall(r"^(TTFT|ITL|E2E) +(\S+) +(\S+) +(\S+) +(\S+)$", done.stdout, flags=re.MULTILINE)
    page = (ROOT / "docs" / "clients.md").read_text()
    assert [row[0] for row in found] == ["TTFT", "ITL", "E2E"]
    for row in found:
        assert f"| {' | '.join(row)} |" in page
    assert "ANSWERS" in done.stdout and "of 4 users; by Little's law" in done.stdout


def test_every_example_is_described():
    pages = "".join(page.read_text() for page in (ROOT / "docs").glob("*.md"))
    for script in (ROOT / "docs" / "examples").glob("*.py"):
        assert f"examples/{script.name}" in pages


@needs_maps
def test_a_split_model_follows_the_prediction(tmp_path):
    pytest.importorskip("torch", reason="torch (extra pipeline) is not installed")
    (point,) = _quick("split_model", tmp_path / "out")
    assert point["passes"] > 10
    assert point["token_s"] > point["computing_s"]
    assert point["byte_per_token"] == 2 * 576 * 4  # two hops; SmolLM2-135M has 576 numbers in its hidden state


def test_a_part_of_your_own_runs_and_leaves_its_table_and_section(tmp_path):
    house = OwnHouse(tmp_path)
    summary = house.call("-m", "isl_emu", "run", "topologies/gossip.toml", "--out", "out", status=(0, INVALID))
    assert "GOSSIP" in summary
    told = rows(tmp_path / "out", "gossip")
    assert len({row["target"] for row in told}) == len(told)
    assert {row["source"] for row in told} > {"p00s00"}  # others passed it on
