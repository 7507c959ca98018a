"""Conversations in exact time: turns wait for answers, contexts grow, and each satellite remembers for itself."""

from __future__ import annotations

import json

import pytest

import isl_emu
from isl_emu.parts.serving.prefix_cache import BLOCK_TOKENS
from isl_emu.scenario.models import model_named
from isl_emu.scenario.parse import load_scenario
from isl_emu.units import NS_PER_S
from tests.exact_guest import needs_exact_time
from tests.scenarios import head, ring_over_china, station, table

pytestmark = [pytest.mark.emulation, needs_exact_time]

RATES = {"uplink": "10 Gbit/s", "downlink": "10 Gbit/s"}
LASER_BIT_S = 100e9  # the lasers of `ring_over_china`, before scaling
THINK_NS = 500_000_000
ROLES = ("user", "assistant")


def talk(number: int) -> dict:
    said = [(role, f"{number}.{turn} " + "word " * 40) for turn in range(4) for role in ROLES]
    return {"id": f"talk-{number}", "messages": [{"role": role, "content": text} for role, text in said]}


def run_of_talks(tmp_path, **asked):
    talks = [talk(number) for number in range(3)]
    (tmp_path / "talks.json").write_text(json.dumps(talks))
    asking = {"conversations": "talks.json", "think_time": "500 ms", "max_answer_tokens": 8, **asked}
    (tmp_path / "talks.toml").write_text(
        head("talks", rate_scale=0.001, start="2026-03-20T14:30:00Z", duration="12 s")
        + ring_over_china()
        + station("gs-chengdu", site="chengdu", **RATES)
        + table("[compute]", satellites="all", server="modelled", board="jetson-agx-thor", model="qwen3-4b", slots=4)
        + table("questions", **asking)
    )
    return isl_emu.run(load_scenario(tmp_path / "talks.toml"), out=tmp_path / "out", clock="exact")


def test_turns_wait_grow_and_are_remembered_where_they_were_read(tmp_path):
    results = run_of_talks(tmp_path, mean_interval="1 s", reuse_prefix=True)
    rows = [row for row in results.table("requests").to_pylist() if row["outcome"] == "completed"]
    turns = {(row["conversation"], row["turn"]): row for row in rows}
    later = [(turns[row["conversation"], row["turn"] - 1], row) for row in rows if row["turn"]]
    assert len(later) > 10
    for before, row in later:
        assert row["t_due_ns"] == before["t_finish_ns"] + THINK_NS
        assert row["conversation_id"] == before["conversation_id"]
        assert row["prompt_tokens"] > before["prompt_tokens"] + 80  # two texts of 204 signs
    known = []
    for row in rows:
        same = [other for other in rows if all(other[key] == row[key] for key in ("satellite", "conversation_id"))]
        if not any(other["t_send_ns"] < row["t_first_ns"] for other in same if other is not row):
            assert row["cached_tokens"] == 0  # its satellite has read nothing of it
        elif any(other["t_first_ns"] < row["t_send_ns"] for other in same):
            known.append(row["cached_tokens"])
    assert known
    assert min(known) > 0


def test_what_was_computed_moves_with_users_who_change_their_satellite(tmp_path):
    """The satellites are uniform at random: most turns go elsewhere, and find what was computed before them."""
    asked = {"arrivals": "users", "users_per_station": 2, "context": "move"}
    results = run_of_talks(tmp_path, **asked)
    rows = [row for row in results.table("requests").to_pylist() if row["outcome"] == "completed"]
    turns = {(row["conversation"], row["turn"]): row for row in rows}
    moved = [row for row in rows if row["moved_tokens"]]
    assert len(moved) > 8
    for row in moved:
        before = turns[row["conversation"], row["turn"] - 1]
        assert row["context_from"] == before["satellite"] != row["satellite"]
        assert row["cached_tokens"] >= row["moved_tokens"] > 0
        assert row["recomputed_tokens"] < BLOCK_TOKENS  # the last block of the prompt before was not whole
        assert row["moved_byte"] == row["moved_tokens"] * model_named("qwen3-4b").kv_byte_per_token
        planned_ns = 8 * row["moved_byte"] / LASER_BIT_S * NS_PER_S  # whose rate is scaled as what is sent
        assert planned_ns < row["move_ns"] < row["ttft_ns"] - row["server_prompt_ns"] - row["planned_rtt_at_send_ns"]
    for row in rows:
        if row["turn"] == 0 or row["context_from"] is None:
            assert row["moved_tokens"] is None
    figures = json.loads((results.path / "serving.json").read_text())["contexts"]
    assert (figures["moved"], figures["lost"]) == (len(moved), 0)
    assert f"in {len(moved)} their context moved" in results.summary.replace("\n", "")
