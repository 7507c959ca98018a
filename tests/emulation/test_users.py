"""Closed-loop users in exact time: who thinks for how long, how many there are, and Little's law by the table."""

from __future__ import annotations

import pytest

import isl_emu
from isl_emu.scenario.parse import parse_scenario
from tests.exact_guest import needs_exact_time
from tests.scenarios import head, ring_over_china, station, table

pytestmark = [pytest.mark.emulation, needs_exact_time]

RATES = {"uplink": "10 Gbit/s", "downlink": "10 Gbit/s"}
S = 1_000_000_000
SCENARIO = (
    head("users", rate_scale=0.001, start="2026-03-20T14:30:00Z", duration="16 s")
    + ring_over_china()
    + station("gs-chengdu", site="chengdu", **RATES)
    + station("gs-beijing", site="beijing", **RATES)
    + table("[compute]", satellites="all", server="modelled", board="jetson-agx-thor", model="qwen3-4b", slots=4)
    + table(
        "questions", arrivals="users", users_per_station=2, think_time="2 s", max_answer_tokens=20, target="nearest"
    )
)


def test_users_wait_think_and_ask_again(tmp_path):
    results = isl_emu.run(parse_scenario(SCENARIO, "users"), out=tmp_path / "out", clock="exact")
    rows = results.table("requests").to_pylist()
    by_user = {user: [row for row in rows if row["user"] == user] for user in range(4)}
    assert sum(map(len, by_user.values())) == len(rows) > 12
    for user, own in by_user.items():
        assert [row["turn"] for row in own] == list(range(len(own)))
        assert {row["station"] for row in own} == {"gs-chengdu" if user < 2 else "gs-beijing"}
        assert own[0]["t_due_ns"] == 0
        for before, after in zip(own, own[1:], strict=False):
            assert before["outcome"] == "completed"
            assert after["t_due_ns"] == before["t_finish_ns"] + 2 * S
    found = results.serving["concurrency"]
    cycles_ns = sum(row["t_finish_ns"] - row["t_send_ns"] + (row["think_ns"] or 0) for row in rows)
    assert found["by_littles_law"] == pytest.approx(cycles_ns / found["window_ns"])
    assert found["users"] == 4
    assert found["by_littles_law"] == pytest.approx(4, rel=0.15)  # who thinks at the end is not seen to do so
