"""When questions come."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from isl_emu.parts.questions.requests import Arrival, arrivals
from isl_emu.parts.questions.traces import TracedRequest
from isl_emu.scenario.questions import Questions
from isl_emu.units import NS_PER_S

HOUR_NS = 3600 * NS_PER_S


def _questions(**changes: object) -> Questions:
    return Questions.model_validate({"mean_interval": "10 s", "prompts": ("one?",), **changes})


def _gaps_s(questions: Questions, hours: int = 100) -> np.ndarray:
    times = [arrival.t_ns for arrival in arrivals(questions, 2, hours * HOUR_NS, np.random.default_rng(1), ())]
    return np.diff(times) / NS_PER_S


def test_poisson_gaps_are_exponential() -> None:
    gaps_s = _gaps_s(_questions())
    five_sigma = 5 * np.sqrt(36_000)
    assert len(gaps_s) == pytest.approx(36_000, abs=five_sigma)
    assert gaps_s.std() == pytest.approx(gaps_s.mean(), rel=0.05)  # exponential: deviation = mean
    assert (gaps_s > 0).all()


@pytest.mark.parametrize("burstiness", [0.25, 1.0, 4.0])
def test_burstiness_is_the_shape_of_the_gaps_and_leaves_their_mean(burstiness: float) -> None:
    gaps_s = _gaps_s(_questions(arrivals="gamma", burstiness=burstiness))
    assert gaps_s.mean() == pytest.approx(10, rel=0.05)
    assert gaps_s.std() / gaps_s.mean() == pytest.approx(1 / np.sqrt(burstiness), rel=0.05)


def test_burstiness_one_is_poisson_draw_by_draw() -> None:
    gamma = _gaps_s(_questions(arrivals="gamma", burstiness=1.0), hours=1)
    assert np.array_equal(gamma, _gaps_s(_questions(), hours=1))


def test_offline_is_all_at_once() -> None:
    offline = Questions.model_validate({"arrivals": "offline", "count": 5})
    assert list(arrivals(offline, 2, HOUR_NS, np.random.default_rng(1), ())) == [Arrival(0)] * 5


def test_in_single_stream_each_waits_for_the_one_before_at_its_station() -> None:
    stream = Questions.model_validate({"arrivals": "single-stream", "count": 3})
    all_of_them = list(arrivals(stream, 2, HOUR_NS, np.random.default_rng(1), ()))
    assert Counter(arrival.station for arrival in all_of_them) == {0: 3, 1: 3}
    for number, arrival in enumerate(all_of_them):
        assert arrival.t_ns == 0
        if arrival.after is None:
            assert number < 2
        else:
            assert all_of_them[arrival.after].station == arrival.station
            assert arrival.after < number


def test_a_trace_arrives_as_it_was_until_the_end() -> None:
    traced = [TracedRequest(t_s * NS_PER_S, 5, 6) for t_s in (0, 2, 50, 70)]
    replayed = Questions.model_validate({"trace": {"file": "any.csv"}})
    found = list(arrivals(replayed, 2, 60 * NS_PER_S, np.random.default_rng(1), traced))
    assert [arrival.traced for arrival in found] == traced[:3]
    assert [arrival.t_ns for arrival in found] == [0, 2 * NS_PER_S, 50 * NS_PER_S]
