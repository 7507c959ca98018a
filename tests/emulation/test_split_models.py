"""Models over several satellites and conversations that move, as whole runs."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from isl_emu.parts.split.rpc_build import backend_path
from isl_emu.parts.split.shares import PIPELINE_MODULES
from tests.runs import chapters, finished, needs_maps, rows
from tests.scenarios import shipped, table

pytestmark = pytest.mark.emulation

MISSING = [name for name in PIPELINE_MODULES if find_spec(name) is None]


def one_question(engine: str) -> str:
    """The shipped scenario of a split model with a single question soon after the start."""
    changes = {
        'duration = "60 s"': 'duration = "25 s"',
        'engine = "pipeline"': f'engine = "{engine}"',
        'mean_interval = "10 s"\nstop_after = "40 s"': 'arrivals = "offline"\ncount = 1\nstations = ["gs-miyun"]',
    }
    return shipped("split-model", changes)


def test_a_conversation_moves_with_its_cache(tmp_path: Path) -> None:
    """A second series offers the same source's caches all along, but the run is too short for it."""
    changes = {'duration = "60 s"': 'duration = "25 s"', "[100, 250, 500, 1000]": "[60]"}
    again = table("[kv_handover]", source="p00s00", target="p00s01", tokens=[40], start="25 s")
    finished(shipped("kv-handover", changes) + again, tmp_path / "out", report=True)
    assert "Conversations that moved" in chapters(tmp_path / "out")
    row, other = rows(tmp_path / "out", "kv_handovers")
    assert (row["outcome"], row["error"], other["outcome"]) == ("completed", None, "unfinished")
    assert [row["t_ns"], *row["computing_ns"]] == sorted([row["t_ns"], *row["computing_ns"]])
    measured_ns = [row["prefill_ns"], row["resume_ns"], row["reprefill_ns"]]
    spells = zip(row["computing_ns"][::2], row["computing_ns"][1::2], strict=True)
    assert all(end - begin > measured for (begin, end), measured in zip(spells, measured_ns, strict=True))
    assert row["received_byte"] == row["kv_byte"] > 60 * 23_000  # 30 layers x 3 heads x 64 numbers, keys and values
    assert row["cached_tokens"] == 59  # the last one is computed to go on
    assert row["same_answer"]
    assert row["transfer_ns"] > 2 * 11_900_000 + row["kv_byte"] * 8 * 10  # a round trip, and 10 ns a bit


@pytest.mark.skipif(bool(MISSING), reason=f"{', '.join(MISSING)} (extra pipeline) is not installed")
@needs_maps
def test_a_pipeline_answers_over_the_lasers(tmp_path: Path) -> None:
    finished(one_question("pipeline"), tmp_path / "out", report=True)
    assert "Split models" in chapters(tmp_path / "out")
    passes = rows(tmp_path / "out", "split")
    assert [row["kind"] for row in passes] == ["prompt"] + ["token"] * (len(passes) - 1)
    assert len(passes) > 5
    for row in passes[1:]:
        assert all(hop > planned for hop, planned in zip(row["hop_ns"], row["planned_hop_ns"], strict=True))
        assert row["loop_ns"] >= sum(row["planned_hop_ns"])
    assert "SPLIT MODELS" in (tmp_path / "out" / "summary.txt").read_text()


@pytest.mark.skipif(not backend_path().exists(), reason="llama.cpp's RPC backend (rpc_build) is not made")
def test_llama_rpc_answers_over_the_lasers(tmp_path: Path) -> None:
    finished(one_question("llama-rpc"), tmp_path / "out")
    (row,) = rows(tmp_path / "out", "split")
    assert row["loop_ns"] > sum(row["planned_hop_ns"])  # a round trip to each worker at the least
    assert row["hop_byte"][1] > 4 * 49_152  # the logits come from the last worker
    assert 2_000 < row["hop_byte"][0] < 50_000
    assert all(computed > 0 for computed in row["compute_ns"])
