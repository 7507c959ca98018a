"""Which questions are asked, from where and of whom."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from isl_emu.errors import ScenarioError
from isl_emu.parts.prompts import CHARACTERS_PER_TOKEN
from isl_emu.parts.questions.requests import Asked, PlannedRequest, check_fit, plan_requests
from isl_emu.parts.questions.traces import TracedRequest
from isl_emu.scenario.questions import Questions
from isl_emu.units import NS_PER_S

STATIONS = {"gs-berlin": 1.0, "gs-oslo": 1.0}
SATELLITES = ("p00s00", "p00s01", "p00s02")
HOUR_NS = 3600 * NS_PER_S
PROMPTS = ("one?", "two?", "three?")


def _questions(**changes: object) -> Questions:
    return Questions.model_validate({"mean_interval": "10 s", "prompts": PROMPTS, **changes})


def _plan(questions: Questions, seed: int = 1, duration_ns: int = HOUR_NS, stations=STATIONS, trace=()):
    asked = Asked(PROMPTS, trace)
    return plan_requests(questions, stations, SATELLITES, duration_ns, np.random.default_rng(seed), asked)


def test_the_same_seed_gives_the_same_requests_and_another_does_not() -> None:
    assert _plan(_questions()) == _plan(_questions())
    assert _plan(_questions()) != _plan(_questions(), seed=2)


def test_questions_stop_at_the_earlier_of_stop_and_duration() -> None:
    assert max(request.t_due_ns for request in _plan(_questions(stop_after="60 s"))) < 60 * NS_PER_S
    assert max(request.t_due_ns for request in _plan(_questions(stop_after="9 h"), duration_ns=HOUR_NS)) < HOUR_NS


def test_questions_start_late_if_they_are_to() -> None:
    early, late = _plan(_questions(stop_after="60 s")), _plan(_questions(start_after="20 s", stop_after="60 s"))
    assert [request.t_due_ns for request in late] == [
        request.t_due_ns + 20 * NS_PER_S for request in early if request.t_due_ns < 40 * NS_PER_S
    ]


def test_every_prompt_is_used_before_any_is_repeated() -> None:
    asked = [request.question for request in _plan(_questions())]
    assert len(asked) > 30
    for begin in range(0, len(asked) - 3, 3):
        assert set(asked[begin : begin + 3]) == {"one?", "two?", "three?"}


def test_stations_and_satellites_are_drawn_uniformly() -> None:
    requests = _plan(_questions(), duration_ns=10 * HOUR_NS)
    for names, field in ((STATIONS, "station"), (SATELLITES, "satellite")):
        counts = Counter(getattr(request, field) for request in requests)
        expected = len(requests) / len(names)
        assert all(counts[name] == pytest.approx(expected, abs=5 * np.sqrt(expected)) for name in names)


def test_more_users_ask_more() -> None:
    requests = _plan(_questions(), duration_ns=10 * HOUR_NS, stations={"gs-a": 30_000_000, "gs-b": 10_000_000})
    counts = Counter(request.station for request in requests)
    assert counts["gs-a"] / len(requests) == pytest.approx(0.75, abs=5 * np.sqrt(0.75 * 0.25 / len(requests)))


def test_each_request_has_a_seed_of_its_own() -> None:
    seeds = [request.seed for request in _plan(_questions())]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**31 for seed in seeds)


@pytest.mark.parametrize("target", ["nearest"])
def test_what_is_decided_live_is_not_planned(target: str) -> None:
    assert {request.satellite for request in _plan(_questions(target=target))} == {None}


def test_a_named_target_is_always_asked() -> None:
    assert {request.satellite for request in _plan(_questions(target="p00s01"))} == {"p00s01"}


def test_another_target_changes_only_who_is_asked() -> None:
    uniform, named, live = (_plan(_questions(target=target)) for target in ("uniform", "p00s01", "nearest"))
    assert [replace(request, satellite="p00s01") for request in uniform] == named
    assert [replace(request, satellite="p00s01") for request in live] == named


def test_other_users_change_only_where_they_ask() -> None:
    near, far = _plan(_questions()), _plan(_questions(), stations={"gs-oslo": 5.0, "gs-berlin": 1.0})
    assert [request.station for request in near] != [request.station for request in far]
    assert [replace(request, station="") for request in near] == [replace(request, station="") for request in far]


def test_nobody_to_ask_means_no_requests() -> None:
    assert _plan(_questions(), stations={}) == []
    assert plan_requests(_questions(), STATIONS, (), HOUR_NS, np.random.default_rng(1), Asked(PROMPTS)) == []


def test_a_replayed_request_is_as_long_as_in_the_trace_and_so_is_its_answer() -> None:
    questions = Questions.model_validate({"trace": {"file": "any.csv"}})
    (request,) = _plan(questions, trace=[TracedRequest(NS_PER_S, 300, 77)])
    assert len(request.question) == round(300 * CHARACTERS_PER_TOKEN)
    assert (request.max_tokens, request.exact_length, request.t_due_ns) == (77, True, NS_PER_S)


def test_replayed_requests_share_text_where_they_shared_blocks() -> None:
    questions = Questions.model_validate({"trace": {"file": "any.jsonl"}})
    trace = [TracedRequest(0, 1024, 1, (7, 8)), TracedRequest(0, 1024, 1, (7, 9)), TracedRequest(0, 700, 1, (7, 8))]
    first, second, shorter = (request.question for request in _plan(questions, trace=trace))
    block = round(512 * CHARACTERS_PER_TOKEN)
    assert first[:block] == second[:block] == shorter[:block]
    assert first[block:] != second[block:]
    assert first.startswith(shorter)
    assert len(shorter) == round(700 * CHARACTERS_PER_TOKEN)


def test_json_round_trip() -> None:
    for request in _plan(_questions(system="Be brief.", temperature=0.7)):
        assert PlannedRequest.from_json(json.loads(json.dumps(request.to_json()))) == request


def test_what_surely_exceeds_the_context_is_refused() -> None:
    requests = _plan(_questions(max_answer_tokens=48))
    check_fit(requests, 64)
    with pytest.raises(ScenarioError, match=r"1 of \d+ need more than compute.context_tokens = 64 .question 2 with"):
        check_fit([*requests[:2], replace(requests[2], question="word " * 200), *requests[3:]], 64)
    with pytest.raises(ScenarioError, match="lower questions.trace.token_scale"):
        check_fit(requests, 40)
