"""Satellites that enter the night with little charge: their computers are switched off, and whoever asks is told so.

In exact time, so what computers did and what their batteries have left are closed forms of the answers they gave.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from isl_emu.parts.serving.busy import AnsweringTimes
from isl_emu.scenario.boards import BOARDS
from isl_emu.units import NS_PER_MS, NS_PER_S
from tests.exact_guest import needs_exact_time
from tests.runs import chapters, finished, rows
from tests.scenarios import shipped, table

pytestmark = [pytest.mark.emulation, needs_exact_time]

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
BOARD = BOARDS["jetson-agx-orin"]
CAPACITY_J, START, RESERVE, DISCHARGE, BUS_W = 3600.0, 0.95, 0.8, 0.95, 60.0  # of the scenario, and a battery's default
SERVING = ("dawn-1", "dawn-2", "low-1", "low-2")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("energy") / "out"
    finished(shipped("dawn-dusk-energy", CHANGES) + MODELLED, out, "--clock", "exact", report=True)
    assert "Energy and heat" in chapters(out)
    return out


def _states(results: Path, satellite: str) -> list[dict]:
    return [row for row in rows(results, "energy") if row["satellite"] == satellite]


def _switched_off_ns(results: Path, satellite: str) -> int:
    return next(row["t_ns"] for row in _states(results, satellite) if row["mode"] == "off")


def test_a_computer_is_busy_for_as_long_as_its_board_computes_its_answers(results):
    """By day no pace is lowered. While a computer has any answer under way it is busy."""
    for satellite in ("dawn-1", "dawn-2"):
        states = _states(results, satellite)
        assert {row["mode"] for row in states} == {"nominal"}
        own = [row for row in rows(results, "requests") if row["satellite"] == satellite]
        duration_ns = sum(row["interval_ns"] for row in states)
        wanted_ns = AnsweringTimes(own).mean_count(0, duration_ns) * duration_ns
        assert wanted_ns > 8 * BOARD.t0_ns  # of one answer with its eight tokens, at the least
        found_ns = sum(row["busy_ratio"] * row["interval_ns"] for row in states)
        assert found_ns == pytest.approx(wanted_ns, abs=5 * NS_PER_MS)  # a way down that is longer than the next one


def test_a_computer_draws_by_how_busy_it_is(results):
    for satellite in SERVING:
        for row in _states(results, satellite):
            on = row["off_ratio"] == 0.0
            wanted_w = BOARD.idle_w + (BOARD.busy_w - BOARD.idle_w) * row["busy_ratio"] if on else 0.0
            assert row["board_w"] == pytest.approx(wanted_w, abs=1e-4)
    assert {row["busy_ratio"] for row in _states(results, "dawn-3")} == {0.0}


def test_batteries_empty_as_bus_and_computer_draw_and_switch_it_off_at_their_reserve(results):
    """In the shadow all comes out of 1 Wh that is charged to 95 %."""
    for satellite in ("low-1", "low-2"):
        charge = START
        for row in _states(results, satellite):
            assert row["sunlit_ratio"] == 0.0
            drawn_j = (BUS_W + row["board_w"]) * row["interval_ns"] / NS_PER_S / DISCHARGE
            charge = max(charge - drawn_j / CAPACITY_J, 0.0)
            assert row["charge_ratio"] == pytest.approx(charge, abs=1e-5)
            assert (row["mode"] == "off") == (charge <= RESERVE)
            if row["mode"] != "off":
                charge = row["charge_ratio"]
    states = rows(results, "energy")
    assert {row["satellite"] for row in states} == {f"{shell}-{n}" for shell in ("dawn", "low") for n in (1, 2, 3)}


def test_a_computer_that_is_off_is_unavailable_and_by_day_all_are_answered(results):
    requests = rows(results, "requests")
    off_ns = {name: _switched_off_ns(results, name) for name in ("low-1", "low-2")}
    sent = [row for row in requests if row["satellite"] in off_ns and row["t_send_ns"] is not None]
    late = [row for row in sent if row["t_send_ns"] > off_ns[row["satellite"]]]
    assert {row["satellite"] for row in late} == set(off_ns)
    assert {row["outcome"] for row in late} == {"unavailable"}
    by_day = [row for row in requests if row["satellite"] in ("dawn-1", "dawn-2")]
    assert {row["outcome"] for row in by_day} == {"completed"}


def test_the_totals_compare_the_shells(results):
    totals = json.loads((results / "energy.json").read_text())
    assert totals["dawn"]["eclipse_ratio"] == 0.0
    assert totals["low"]["eclipse_ratio"] == pytest.approx(1.0)
    assert totals["dawn"]["off_ratio"] == 0.0 < totals["low"]["off_ratio"]
    assert totals["low"]["in_time"] < totals["dawn"]["in_time"]
    assert "ENERGY AND HEAT" in (results / "summary.txt").read_text()
