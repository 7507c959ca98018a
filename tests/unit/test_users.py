"""Closed-loop users and the course of a load, by figures that can be computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from isl_emu.parts.questions.figures import Concurrency
from isl_emu.parts.questions.ramp import Ramp
from isl_emu.parts.questions.requests import Asked, plan_requests
from isl_emu.parts.questions.users import plan_users, think_time_ns, users_at
from isl_emu.scenario.questions import Questions, ThinkTime
from isl_emu.units import NS_PER_S

PROMPTS = tuple(f"{number}?" for number in range(50))
MINUTE_NS = 60 * NS_PER_S
UP = Ramp([(0, 0.0), (MINUTE_NS, 1.0)])


def _users(stations=("gs-a", "gs-b"), seed: int = 1, **changes: object):
    table = {"arrivals": "users", "users_per_station": 2, "think_time": "5 s", "prompts": PROMPTS, **changes}
    weights = dict.fromkeys(stations, 1.0)
    rng = np.random.default_rng(seed)
    return plan_users(Questions.model_validate(table), weights, ("p00s00", "p00s01"), MINUTE_NS, rng, Asked(PROMPTS))


def test_a_load_that_rises_evenly_has_come_by_the_square_of_time() -> None:
    assert UP.reached_ns(7.5 * NS_PER_S) == 30 * NS_PER_S
    assert UP.reached_ns(30 * NS_PER_S) == MINUTE_NS
    assert UP.reached_ns(31 * NS_PER_S) == 61 * NS_PER_S


def test_a_load_that_falls_to_nothing_ends() -> None:
    down = Ramp([(10 * NS_PER_S, 1.0), (20 * NS_PER_S, 0.0)])
    assert down.reached_ns(4 * NS_PER_S) == 4 * NS_PER_S  # before the first point it is as there
    assert down.reached_ns(13.75 * NS_PER_S) == 15 * NS_PER_S  # 10 + 5 x (1 + 0.5) / 2
    assert down.reached_ns(15.1 * NS_PER_S) == math.inf


def test_regular_questions_come_where_the_count_passes_whole_numbers() -> None:
    table = {"arrivals": "constant", "rate": 2.0, "ramp": (("0 s", 0.0), ("60 s", 1.0)), "prompts": PROMPTS}
    questions, rng = Questions.model_validate(table), np.random.default_rng(1)
    found = plan_requests(questions, {"gs-a": 1.0}, ("p00s00",), MINUTE_NS, rng, Asked(PROMPTS))
    assert len(found) == 59  # 2/s x 60 s / 2, of which the last is due at the end
    for number, request in enumerate(found, 1):
        assert request.t_due_ns == pytest.approx(math.sqrt(number * MINUTE_NS * NS_PER_S), abs=1)


def test_poisson_questions_under_a_ramp_are_those_without_at_other_times() -> None:
    def due(**changes: object) -> list[int]:
        questions = Questions.model_validate({"rate": 5.0, "prompts": PROMPTS, **changes})
        arguments = {"gs-a": 1.0}, ("p00s00",), MINUTE_NS, np.random.default_rng(3), Asked(PROMPTS)
        return [request.t_due_ns for request in plan_requests(questions, *arguments)]

    half_later = due(ramp=(("0 s", 0.0), ("20 s", 0.0), ("20.000000001 s", 1.0)))
    assert half_later == pytest.approx([t_ns + 20 * NS_PER_S for t_ns in due() if t_ns < 40 * NS_PER_S], abs=3)


def test_users_come_one_by_one_while_the_load_rises() -> None:
    requests = _users(ramp=(("0 s", 0.0), ("40 s", 1.0)), start_after="4 s")
    firsts = [request.t_due_ns for request in requests if request.turn == 0 and request.station == "gs-a"]
    assert firsts == [14 * NS_PER_S, 34 * NS_PER_S]  # 1/4 and 3/4 of the ramp: round(2 x load) users


def test_a_user_asks_again_when_the_load_is_back() -> None:
    ramp = Ramp([(0, 1.0), (10, 0.0), (20, 0.0), (30, 1.0)])
    assert [ramp.next_ns(t_ns, 0.5) for t_ns in (3, 5, 6, 25, 99)] == [3, 5, 25, 25, 99]
    assert Ramp([(0, 1.0), (10, 0.0)]).next_ns(6, 0.5) is None


def test_turns_are_those_that_thinking_alone_leaves_room_for() -> None:
    requests = _users()
    assert [request.id for request in requests] == list(range(4 * 12))  # 60 s / 5 s
    by_id = {request.id: request for request in requests}
    for request in requests:
        assert request.think_ns == (5 * NS_PER_S if request.turn else 0)
        before = None if request.after is None else by_id[request.after]
        assert (before is None) == (request.turn == 0)
        assert before is None or (before.user, before.turn) == (request.user, request.turn - 1)
    assert len(_users(count=3)) == 4 * 3


def test_what_a_user_does_depends_on_no_other_user() -> None:
    def of(user: int, **changes: object):
        think = {"distribution": "exponential", "mean": "5 s"}
        found = _users(think_time=think, **changes)
        return [(one.think_ns, one.question, one.satellite, one.seed) for one in found if one.user == user]

    assert of(1) == of(1, users_per_station=7) != of(0)
    assert of(1) != of(1, seed=2)


def test_users_are_spread_by_largest_remainder() -> None:
    assert users_at({"a": 1.0, "b": 1.0}, 6) == {"a": 3, "b": 3}
    assert users_at({"a": 5.0, "b": 3.0, "c": 1.0}, 7) == {"a": 4, "b": 2, "c": 1}  # 3.89, 2.33, 0.78


@pytest.mark.parametrize(
    ("table", "deviation_s"),
    [
        ({"mean": "4 s"}, 0.0),
        ({"distribution": "exponential", "mean": "4 s"}, 4.0),
        ({"distribution": "lognormal", "mean": "4 s", "deviation": "2 s"}, 2.0),
    ],
)
def test_think_times_have_their_mean_and_deviation(table: dict[str, str], deviation_s: float) -> None:
    think, rng = ThinkTime.model_validate(table), np.random.default_rng(5)
    drawn_s = np.array([think_time_ns(think, rng) for _ in range(20_000)]) / NS_PER_S
    assert drawn_s.mean() == pytest.approx(4.0, rel=0.03)
    assert drawn_s.std() == pytest.approx(deviation_s, rel=0.05)


def test_littles_law_counts_the_users() -> None:
    """Two users, each three times 2 s of waiting and in between 3 s of thinking, from 1 s to 13 s."""
    rows = [
        {
            "user": user,
            "think_ns": 3 * NS_PER_S if turn else None,
            "t_send_ns": t * NS_PER_S,
            "t_finish_ns": (t + 2) * NS_PER_S,
        }
        for user in range(2)
        for turn, t in enumerate((1, 6, 11))
    ]
    found = Concurrency.of(rows)
    assert (found.users, found.window_ns, found.in_flight) == (2, 12 * NS_PER_S, 1.0)
    assert (found.questions_per_s, found.wait_ns, found.think_ns) == (0.5, 2 * NS_PER_S, 2 * NS_PER_S)
    assert found.by_littles_law == 2.0
    assert Concurrency.of([{"t_send_ns": 1}]) is None
