"""Which questions are asked, when and of whom."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest

from isl_emu.scenario.model import Questions
from isl_emu.units import NS_PER_S
from isl_emu.workload.arrivals import PlannedRequest, plan_requests

STATIONS = ("gs-berlin", "gs-oslo")
SATELLITES = ("p00s00", "p00s01", "p00s02")
HOUR_NS = 3600 * NS_PER_S


def _questions(**changes: object) -> Questions:
    return Questions.model_validate({"mean_interval": "10 s", "prompts": ("one?", "two?", "three?"), **changes})


def _plan(questions: Questions, seed: int = 1, duration_ns: int = HOUR_NS, nearest=lambda station, t_ns: None):
    return plan_requests(questions, STATIONS, SATELLITES, duration_ns, np.random.default_rng(seed), nearest)


def test_the_same_seed_gives_the_same_requests_and_another_does_not() -> None:
    assert _plan(_questions()) == _plan(_questions())
    assert _plan(_questions()) != _plan(_questions(), seed=2)


def test_arrivals_are_poisson() -> None:
    requests = _plan(_questions(), duration_ns=100 * HOUR_NS)
    gaps_s = np.diff([request.t_due_ns for request in requests]) / NS_PER_S
    five_sigma = 5 * np.sqrt(36_000)
    assert len(requests) == pytest.approx(36_000, abs=five_sigma)
    assert gaps_s.std() == pytest.approx(gaps_s.mean(), rel=0.05)  # exponential: deviation = mean
    assert (gaps_s > 0).all()


def test_questions_stop_at_the_earlier_of_stop_and_duration() -> None:
    assert max(request.t_due_ns for request in _plan(_questions(stop_after="60 s"))) < 60 * NS_PER_S
    assert max(request.t_due_ns for request in _plan(_questions(stop_after="9 h"), duration_ns=HOUR_NS)) < HOUR_NS


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


def test_each_request_has_a_seed_of_its_own() -> None:
    seeds = [request.seed for request in _plan(_questions())]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_nearest_is_asked_with_station_and_time_and_may_be_nothing() -> None:
    asked = []

    def nearest(station: str, t_ns: int) -> str | None:
        asked.append((station, t_ns))
        return "p00s02" if len(asked) > 1 else None

    requests = _plan(_questions(target="nearest"), nearest=nearest)
    assert asked == [(request.station, request.t_due_ns) for request in requests]
    assert requests[0].satellite is None
    assert {request.satellite for request in requests[1:]} == {"p00s02"}


def test_a_named_target_is_always_asked() -> None:
    assert {request.satellite for request in _plan(_questions(target="p00s01"))} == {"p00s01"}


def test_the_target_policy_does_not_move_the_arrivals() -> None:
    uniform, named = _plan(_questions()), _plan(_questions(target="p00s01"))
    assert uniform[0].t_due_ns == named[0].t_due_ns


def test_nobody_to_ask_means_no_requests() -> None:
    assert plan_requests(_questions(), (), SATELLITES, HOUR_NS, np.random.default_rng(1), lambda *_: None) == []
    assert plan_requests(_questions(), STATIONS, (), HOUR_NS, np.random.default_rng(1), lambda *_: None) == []


def test_json_round_trip() -> None:
    for request in _plan(_questions(system="Be brief.", temperature=0.7)):
        assert PlannedRequest.from_json(json.loads(json.dumps(request.to_json()))) == request
