"""The figures of questions and answers follow the definitions of the field."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pyarrow.parquet as pq
import pytest

from isl_emu.files import write_json
from isl_emu.parts.questions.figures import PromptTokens
from isl_emu.parts.questions.results import prompts_read
from isl_emu.results.conclude import conclude
from isl_emu.scenario.compute import Compute
from isl_emu.scenario.parse import with_changes

MS = 1_000_000
S = 1_000_000_000


def _attempt(number: int = 0, **changes: Any) -> dict[str, Any]:
    """A journal's attempt, over two lasers each way."""
    record = {
        "id": number, "attempt": 1, "station": "gs-a", "satellite": "p00s02", "t_send_ns": 500 * MS,
        "t_first_ns": 800 * MS, "t_finish_ns": 1500 * MS, "outcome": "completed", "error": None, "answer_tokens": 8,
        "sent_byte": 1000, "received_byte": 5000,
    }  # fmt: skip
    return {**record, **changes}


def _figures(run: Any, *requests: dict[str, Any], attempts: Any = (), **questions: Any) -> dict[str, Any]:
    run = replace(run, scenario=with_changes(run.scenario, questions=questions)) if questions else run
    run.write("requests.jsonl", [{"attempts": 1, "t_last_send_ns": row["t_send_ns"], **row} for row in requests])
    run.write("attempts.jsonl", attempts)
    write_json(run.folder.provenance, {})
    conclude(run.folder, run.scenario, run.plan, run.routes)
    return json.loads((run.folder.path / "serving.json").read_text())


def test_rates_count_from_the_first_question_to_the_last_answer(good_run: Any) -> None:
    second = good_run.request(1, t_send_ns=1500 * MS, t_finish_ns=2500 * MS, answer_tokens=12)
    cut = good_run.request(2, outcome="failed", t_finish_ns=3900 * MS, e2e_ns=None)
    figures = _figures(good_run, good_run.request(0), second, cut)
    assert figures["rates"] == {
        "window_ns": 2 * S, "requests_per_s": 1.0, "output_tokens_per_s": 10.0, "goodput_per_s": None,
    }  # fmt: skip
    assert figures["outcomes"] == {"completed": 2, "failed": 1}
    assert figures["ttft_ns"]["count"] == 2
    assert figures["arrivals"] == {"kind": "poisson", "mlperf_scenario": "Server"}
    assert figures["stations"]["gs-a"]["completed"] == figures["satellites"]["p00s02"]["completed"] == 2


def test_goodput_counts_answers_that_keep_every_level(good_run: Any) -> None:
    slow_start = good_run.request(1, ttft_ns=301 * MS)
    slow_tokens = good_run.request(2, e2e_ns=1001 * MS, ttft_ns=200 * MS)  # TPOT (1001 - 200) / 7 ms
    one_token = good_run.request(3, answer_tokens=1, itl_ns=[], e2e_ns=300 * MS)  # it has no TPOT that could be late
    slo = {"ttft": "300 ms", "tpot": "110 ms"}
    figures = _figures(good_run, good_run.request(0), slow_start, slow_tokens, one_token, slo=slo)
    assert figures["slo"] == {"ttft_ns": 300 * MS, "tpot_ns": 110 * MS, "e2e_ns": None, "met": 2}
    assert figures["rates"]["goodput_per_s"] == 2.0
    assert "goodput 2.00 requests/s · 2 of 4 within TTFT 300 ms, TPOT 110 ms" in good_run.folder.summary.read_text()


def test_prompts_are_told_as_cached_and_computed(good_run: Any) -> None:
    told = (
        good_run.request(0, prompt_tokens=100, cached_tokens=64),
        good_run.request(1, prompt_tokens=60, cached_tokens=0),
    )
    silent = (
        good_run.request(2, prompt_tokens=50),
        good_run.request(3, outcome="failed", prompt_tokens=9, cached_tokens=9),
    )
    figures = _figures(good_run, *told, *silent)
    expected = {"requests": 2, "tokens": 160, "cached": 64, "computed": 96}
    assert figures["prompt_tokens"] == figures["stations"]["gs-a"]["prompt_tokens"] == expected
    assert figures["satellites"]["p00s02"]["prompt_tokens"] == figures["groups"]["0"]["prompt_tokens"] == expected
    assert "prompts of 160 tokens · 64 cached (40%) · 96 computed" in good_run.folder.summary.read_text()
    assert PromptTokens.of(silent) is None


def test_each_group_that_tells_it_is_in_the_summary(good_run: Any) -> None:
    both = [Compute(satellites=("p00s01",)), Compute(satellites=("p00s02",))]
    scenario = good_run.scenario.model_copy(update={"compute": tuple(both)})
    rows = [good_run.request(n, prompt_tokens=10, cached_tokens=n, satellite=f"p00s0{n + 1}") for n in (0, 1)]
    assert [" ".join(line.split()) for line in prompts_read([{**row, "warm_up": False} for row in rows], scenario)] == [
        "prompts of 20 tokens · 1 cached (5.0%) · 19 computed",
        "group 0: prompts of 10 tokens · 0 cached (0%) · 10 computed",
        "group 1: prompts of 10 tokens · 1 cached (10%) · 9 computed",
    ]


def test_turns_elsewhere_tell_what_moved_and_what_was_computed_again(good_run: Any) -> None:
    def turn(number: int, prompt: int, cached: int | None, **moved: Any) -> dict[str, Any]:
        told = {"conversation": 0, "turn": number, "prompt_tokens": prompt, "cached_tokens": cached}
        return good_run.request(number, **told, **moved)

    came = {"context_from": "p00s01", "moved_tokens": 96, "moved_byte": 9_600_000, "move_ns": 40 * MS}
    lost = {"context_from": "p00s02", "moved_tokens": 0, "moved_byte": 0, "move_ns": 5000 * MS}
    knew = {**lost, "context_from": "p00s01"}  # as much as the one before, by another conversation that begins alike
    turns = turn(0, 100, 0), turn(1, 200, 96, **came), turn(2, 300, 0, **lost), turn(3, 400, 288, **knew)
    figures = _figures(good_run, *turns, good_run.request(4))
    rows = pq.read_table(good_run.folder.path / "requests.parquet").to_pylist()
    assert [row["recomputed_tokens"] for row in rows] == [None, 4, 200, 12, None]
    waited = figures["contexts"].pop("move_ns")
    assert figures["contexts"] == {
        "changes": 3, "moved": 1, "lost": 1, "moved_tokens": 96, "recomputed_tokens": 216, "moved_byte": 9_600_000,
    }  # fmt: skip
    assert (waited["count"], waited["p50"]) == (1, 40 * MS)
    told = " ".join(good_run.folder.summary.read_text().split())
    assert (
        "3 turns at another satellite than the one before · in 1 their context moved (9.60 MB, median wait 40.0 ms)"
        in told
    )
    assert "in 1 it could not · 216 tokens of earlier prompts computed again" in told


def test_bytes_on_lasers_are_those_of_all_attempts_times_their_lasers(good_run: Any) -> None:
    failed = _attempt(satellite="p00s00", outcome="failed", t_first_ns=None, received_byte=100)  # no laser on its way
    figures = _figures(good_run, good_run.request(sent_byte=2000, received_byte=5100), attempts=[failed, _attempt()])
    assert figures["bytes"] == {
        "sent": 2000, "received": 5100, "on_lasers": 2 * 6000, "polls_sent": 0, "polls_received": 0,
    }  # fmt: skip
    assert "2.00 kB sent · 5.10 kB received · 12.0 kB on lasers" in good_run.folder.summary.read_text()


def test_an_answer_that_came_over_two_paths_counts_the_lasers_of_both(good_run: Any) -> None:
    across = _attempt(t_first_ns=1500 * MS, t_finish_ns=2500 * MS)  # two lasers until 2 s, then one
    assert _figures(good_run, good_run.request(), attempts=[across])["bytes"]["on_lasers"] == 2 * 1000 + 1.5 * 5000


@pytest.mark.parametrize(
    ("first_ms", "gaps_ms", "at_handover_ms"),
    [
        (1800, [100, 150, 100], [150]),  # tokens at 1.8, 1.9, 2.05 s; the path changes at 2 s
        (2001, [5, 5, 100], [5, 5, 100]),  # what was on its way then comes up to 12 ms later
        (2100, [100, 100], []),
        (1000, [100, 100], []),
    ],
)
def test_gaps_during_which_the_path_changed(
    good_run: Any, first_ms: int, gaps_ms: list[int], at_handover_ms: list[int]
) -> None:
    gaps = {"t_first_ns": first_ms * MS, "itl_ns": [gap * MS for gap in gaps_ms], "t_finish_ns": 2900 * MS}
    spread = _figures(good_run, good_run.request(**gaps))["itl_at_handover_ns"]
    assert (spread["count"], spread["max"]) == (len(at_handover_ms), max(at_handover_ms, default=None) and
                                                max(at_handover_ms) * MS)  # fmt: skip


def test_a_request_asked_twice_is_told_by_its_last_attempt(good_run: Any) -> None:
    twice = good_run.request(t_last_send_ns=2100 * MS, t_first_ns=2300 * MS, t_finish_ns=2900 * MS)
    figures = _figures(good_run, {**twice, "attempts": 2})
    assert (figures["attempts"], figures["asked_again"], figures["hops"]["p50"]) == (2, 1, 2)
    assert "1 further attempt after a first one failed" in good_run.folder.summary.read_text()


def test_nothing_answered_gives_gaps_and_no_zeros(good_run: Any) -> None:
    figures = _figures(good_run, good_run.request(outcome="unreachable", e2e_ns=None, t_first_ns=None, itl_ns=[]))
    assert set(figures["rates"].values()) == {None}
    assert figures["e2e_ns"]["p50"] is None
