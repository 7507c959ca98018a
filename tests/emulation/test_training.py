"""What docs/training.md tells people to type trains, and the results say how."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.runs import INVALID, ROOT, chapters, isl_emu, rows

pytestmark = pytest.mark.emulation


def test_the_shipped_training_sums_over_its_lasers(tmp_path: Path) -> None:
    (block,) = re.findall(r"^```sh\n(.*?)^```", (ROOT / "docs" / "training.md").read_text(), re.DOTALL | re.MULTILINE)
    _, *words = shlex.split(block)
    out = tmp_path / "out"
    done = isl_emu(*words, "--duration", "15s", "--out", out)
    assert done.returncode in (0, INVALID), done.stdout + done.stderr
    completed = [row for row in rows(out, "training") if row["outcome"] == "completed"]
    assert completed
    for row in completed:
        assert len(set(row["participants"])) == 24
        assert sum(row["sent_byte"]) == sum(row["received_byte"]) == 2 * 23 * 200_000
        assert row["theory_byte"] == 2 * 23 * 200_000 // 24
        assert row["collective_ns"] > 0.95 * row["predicted_ns"]
        assert min(row["compute_ns"]) > 0.99 * 6e9 * 32_768 / (0.4 * 756e12) * 1e9
    assert "Training: one-model" in chapters(out)
    assert "TRAINING  one-model: 24 satellites, modelled gradients, ring" in (out / "summary.txt").read_text()
