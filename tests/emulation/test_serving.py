"""A replayed trace is served over the emulated network, by a policy of a user's own, and measured."""

from __future__ import annotations

import json

import pytest

import isl_emu
from isl_emu.parts.prompts import CHARACTERS_PER_TOKEN
from isl_emu.scenario.parse import load_scenario
from tests.runs import ROOT
from tests.scenarios import head, ring_over_china, station, table

pytestmark = pytest.mark.emulation

RATES = {"uplink": "10 Gbit/s", "downlink": "10 Gbit/s"}
SCENARIO = (
    head("replayed", rate_scale=0.001, start="2026-03-20T14:30:00Z", duration="14 s")
    + ring_over_china()
    + station("gs-chengdu", site="chengdu", **RATES)
    + station("gs-beijing", site="beijing", **RATES)
    + table("[compute]", satellites="all", server="modelled", board="jetson-agx-thor", model="qwen3-4b", slots=1)
    + """
[questions]
users = "population"
target = "docs.examples.idle_first:choose"
poll_interval = "500 ms"
retries = 1
[questions.trace]
file = "trace.jsonl"
token_scale = 0.05
[questions.slo]
ttft = "5 s"
"""
)
REQUESTS = 9
PROMPT_TOKENS, ANSWER_TOKENS, SCALE = 2000, 400, 0.05


def _trace() -> str:
    """One request a second, in Mooncake's form; all begin with the same block."""
    lines = [
        {"timestamp": 1000 * n, "input_length": PROMPT_TOKENS, "output_length": ANSWER_TOKENS, "hash_ids": [0, n, n, n]}
        for n in range(REQUESTS)
    ]
    return "".join(json.dumps(line) + "\n" for line in lines)


def test_a_trace_is_replayed_by_a_policy_of_a_users_own(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)  # where the policy's module is found
    (tmp_path / "trace.jsonl").write_text(_trace())
    (tmp_path / "scenario.toml").write_text(SCENARIO)
    results = isl_emu.run(load_scenario(tmp_path / "scenario.toml"), out=tmp_path / "out")
    requests = results.table("requests").to_pylist()
    assert [row["t_due_ns"] for row in requests] == [n * 1_000_000_000 for n in range(REQUESTS)]
    assert len({row["question"][: round(25 * CHARACTERS_PER_TOKEN)] for row in requests}) == 1  # the shared block
    assert {len(row["question"]) for row in requests} == {round(PROMPT_TOKENS * SCALE * CHARACTERS_PER_TOKEN)}
    done = [row for row in requests if row["outcome"] == "completed"]
    assert len(done) >= REQUESTS - 2
    for row in done:
        assert row["answer_tokens"] == len(row["itl_ns"]) + 1 == round(ANSWER_TOKENS * SCALE)
        assert row["ttft_ns"] > row["planned_rtt_at_send_ns"]
        lasers = row["hops_at_send"] - 1
        if not row["handovers"]:
            assert row["laser_byte"] == lasers * (row["sent_byte"] + row["received_byte"])
    _check_figures(results, done)
    polls = results.table("polls").to_pylist()
    assert {row["station"] for row in polls} == {row["station"] for row in requests}
    assert sum(row["rtt_ns"] is not None for row in polls) > len(polls) / 2
    assert max(row["queue"] or 0 for row in polls) <= REQUESTS


def _check_figures(results, done) -> None:
    figures = results.serving
    assert figures["arrivals"]["kind"] == "trace"
    assert figures["outcomes"]["completed"] == len(done)
    assert figures["rates"]["output_tokens_per_s"] > 0
    assert figures["slo"]["ttft_ns"] == 5_000_000_000
    assert figures["bytes"]["polls_received"] > 0
    assert "goodput" in results.summary
