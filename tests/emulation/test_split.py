"""Models over several satellites and conversations that move, as whole runs."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from isl_emu.parts.split.extras import PIPELINE_MODULES, rpc_backend

pytestmark = pytest.mark.emulation

ROOT = Path(__file__).parents[2]
PATIENCE_S = 600  # only for telling a hang from a slow machine
INVALID = 3  # a crowded machine may distort a run; what is looked at here holds all the same
SPLIT, MOVE = (ROOT / "topologies" / f"{name}.toml" for name in ("split-model", "kv-handover"))
MISSING = [name for name in PIPELINE_MODULES if find_spec(name) is None]


def finished(scenario: Path, folder: Path, table: str) -> list[dict[str, Any]]:
    """The rows of a table of a run."""
    command = [sys.executable, "-m", "isl_emu", "run", str(scenario), "--out", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode in (0, INVALID), done.stdout + done.stderr
    return pq.read_table(folder / f"{table}.parquet").to_pylist()


def shortened(scenario: Path, target: Path, *changes: tuple[str, str]) -> Path:
    text = scenario.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    target.write_text(text)
    return target


def one_question(target: Path, engine: str) -> Path:
    """The shipped scenario of a split model with a single question soon after the start."""
    changes = [('duration = "60 s"', 'duration = "45 s"'), ('engine = "pipeline"', f'engine = "{engine}"')]
    asks = ('mean_interval = "10 s"\nstop_after = "40 s"', 'arrivals = "offline"\ncount = 1\nstations = ["gs-miyun"]')
    return shortened(SPLIT, target, *changes, asks)


def test_a_conversation_moves_with_its_cache(tmp_path: Path) -> None:
    changes = [('duration = "60 s"', 'duration = "25 s"'), ("[100, 250, 500, 1000]", "[60]")]
    scenario = shortened(MOVE, tmp_path / "move.toml", *changes)
    (row,) = finished(scenario, tmp_path / "out", "kv_handovers")
    assert (row["outcome"], row["error"]) == ("completed", None)
    assert row["received_byte"] == row["kv_byte"] > 60 * 23_000  # 30 layers x 3 heads x 64 numbers, keys and values
    assert row["cached_tokens"] == 59  # the last one is computed to go on
    assert row["same_answer"]
    assert row["transfer_ns"] > 2 * 11_900_000 + row["kv_byte"] * 8 * 10  # a round trip, and 10 ns a bit


@pytest.mark.skipif(bool(MISSING), reason=f"{', '.join(MISSING)} (extra pipeline) is not installed")
def test_a_pipeline_answers_over_the_lasers(tmp_path: Path) -> None:
    rows = finished(one_question(tmp_path / "split.toml", "pipeline"), tmp_path / "out", "split")
    assert [row["kind"] for row in rows] == ["prompt"] + ["token"] * (len(rows) - 1)
    assert len(rows) > 5
    for row in rows[1:]:
        assert all(hop > planned for hop, planned in zip(row["hop_ns"], row["planned_hop_ns"], strict=True))
        assert row["loop_ns"] >= sum(row["planned_hop_ns"])
    assert "SPLIT MODELS" in (tmp_path / "out" / "summary.txt").read_text()


@pytest.mark.skipif(not rpc_backend().exists(), reason="llama.cpp's RPC backend (rpc_build) is not made")
def test_llama_rpc_answers_over_the_lasers(tmp_path: Path) -> None:
    (row,) = finished(one_question(tmp_path / "split.toml", "llama-rpc"), tmp_path / "out", "split")
    assert row["loop_ns"] > sum(row["planned_hop_ns"])  # a round trip to each worker at the least
    assert row["hop_byte"][1] > 4 * 49_152  # the logits come from the last worker
    assert 2_000 < row["hop_byte"][0] < 50_000
    assert all(computed > 0 for computed in row["compute_ns"])
