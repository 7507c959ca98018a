"""Satellites that enter the night with little charge: their computers are switched off, and whoever asks is told so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.runs import finished, rows
from tests.scenarios import shipped, table

pytestmark = pytest.mark.emulation

S = 1_000_000_000
CHANGES = {
    "start = 2026-03-20T11:42:20Z": "start = 2026-03-20T11:44:20Z",  # the low ones are in the shadow now
    'duration = "190 s"': 'duration = "18 s"',
    'stop_after = "170 s"': 'stop_after = "15 s"',
    'mean_interval = "4 s"': 'mean_interval = "500 ms"',
    "max_answer_tokens = 24": "max_answer_tokens = 8",
    'capacity = "10 Wh", start_charge = 0.88': 'capacity = "1 Wh", start_charge = 0.95',
    '[compute]\nsatellites = "all"': '[[compute]]\nsatellites = ["dawn-1", "low-1"]',
}
MODELLED = table(
    "[compute]", satellites=["dawn-2", "low-2"], server="modelled", board="jetson-agx-orin", model="qwen3-0-6b"
)


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("energy") / "out"
    finished(shipped("dawn-dusk-energy", CHANGES) + MODELLED, out)
    return out


def _switched_off_ns(results: Path, satellite: str) -> int:
    states = [row for row in rows(results, "energy") if row["satellite"] == satellite]
    return next(row["t_ns"] for row in states if row["mode"] == "off")


def test_batteries_empty_as_the_model_says(results):
    """15 % of 1 Wh at 95 % feed 60 W for the bus and 9 to 60 W for the computer for 4.3 to 7.4 s."""
    for satellite in ("low-1", "low-2"):
        assert 3 * S < _switched_off_ns(results, satellite) < 12 * S
    states = rows(results, "energy")
    assert {row["mode"] for row in states if row["satellite"].startswith("dawn")} == {"nominal"}
    assert {row["board_w"] for row in states if row["off_ratio"] == 1.0} == {0.0}
    assert {row["satellite"] for row in states} == {f"{shell}-{n}" for shell in ("dawn", "low") for n in (1, 2, 3)}
    assert max(row["busy_ratio"] for row in states if row["satellite"] == "dawn-1") > 0.02
    assert max(row["busy_ratio"] for row in states if row["satellite"] == "dawn-2") > 0.0


def test_a_computer_that_is_off_is_unavailable_and_by_day_all_are_answered(results):
    requests = rows(results, "requests")
    off_ns = {name: _switched_off_ns(results, name) for name in ("low-1", "low-2")}
    sent = [row for row in requests if row["satellite"] in off_ns and row["t_send_ns"] is not None]
    late = [row for row in sent if row["t_send_ns"] > off_ns[row["satellite"]] + S]
    assert {row["satellite"] for row in late} == set(off_ns)
    assert {row["outcome"] for row in late} == {"unavailable"}
    by_day = [row for row in requests if row["satellite"] in ("dawn-1", "dawn-2")]
    assert {row["outcome"] for row in by_day} <= {"completed", "unfinished"}
    assert any(row["outcome"] == "completed" for row in by_day)


def test_the_totals_compare_the_shells(results):
    totals = json.loads((results / "energy.json").read_text())
    assert totals["dawn"]["eclipse_ratio"] == 0.0
    assert totals["low"]["eclipse_ratio"] == pytest.approx(1.0)
    assert totals["dawn"]["off_ratio"] == 0.0 < totals["low"]["off_ratio"]
    assert totals["low"]["in_time"] < totals["dawn"]["in_time"]
    assert "ENERGY AND HEAT" in (results / "summary.txt").read_text()
