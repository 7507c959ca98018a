"""Conversations from files: which shapes are read, what their turns ask, and in which order."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from isl_emu.errors import ScenarioError
from isl_emu.parts.prompts import text_tokens
from isl_emu.parts.questions.conversations import Turn, read_conversations
from isl_emu.parts.questions.exchange import body
from isl_emu.parts.questions.requests import PlannedRequest, check_fit, plan_requests, read_asked
from isl_emu.parts.questions.users import plan_users
from isl_emu.parts.serving.modelled_server import count_tokens
from isl_emu.scenario.questions import Questions
from isl_emu.units import NS_PER_S

MINUTE_NS = 60 * NS_PER_S
SAID = [
    ("human", "Why is the sky blue?"),
    ("gpt", "Rayleigh scattering."),
    ("human", "And red?"),
    ("gpt", "Dust, " * 99),
]
SHARED = [{"id": "a", "conversations": [{"from": role, "value": text} for role, text in SAID]}]
STATIONS, SATELLITES = {"gs-a": 1.0, "gs-b": 1.0}, ("p00s00", "p00s01")


def _file(folder: Path, *talks: list[tuple[str, str]]) -> str:
    path = folder / "talks.jsonl"
    lines = ({"messages": [{"role": role, "content": text} for role, text in talk]} for talk in talks)
    path.write_text("\n".join(map(json.dumps, lines)))
    return str(path)


def _plan(file: str, seed: int = 1, stations=STATIONS, **changes: object) -> list[PlannedRequest]:
    questions = Questions.model_validate({"conversations": file, "max_answer_tokens": 100, **changes})
    plan = plan_users if questions.arrivals == "users" else plan_requests
    asked = read_asked(questions, MINUTE_NS)
    return plan(questions, stations, SATELLITES, MINUTE_NS, np.random.default_rng(seed), asked)


def _talks(count: int, turns: int = 3) -> list[list[tuple[str, str]]]:
    return [
        [(role, f"{role} {talk}.{turn}") for turn in range(turns) for role in ("user", "assistant")]
        for talk in range(count)
    ]


def test_both_shapes_are_read(tmp_path: Path) -> None:
    path = tmp_path / "talks.json"
    path.write_text(json.dumps(SHARED))
    (shared,) = read_conversations(str(path))
    openai = [("user" if role == "human" else "assistant", text) for role, text in SAID]
    (messages,) = read_conversations(_file(tmp_path, openai))
    assert shared.turns == messages.turns
    assert (shared.id, messages.id) == ("a", "1")
    first, second = shared.turns
    assert first == Turn("Why is the sky blue?", (), text_tokens("Rayleigh scattering."))
    assert second == Turn("And red?", (("assistant", "Rayleigh scattering."),), text_tokens("Dust, " * 99))


def test_what_stands_before_a_question_is_in_its_prompt(tmp_path: Path) -> None:
    talk = [("system", "Be brief."), ("assistant", "Hello."), ("user", "Why?"), ("user", "Well?"), ("assistant", "So.")]
    (found,) = read_conversations(_file(tmp_path, talk))
    assert found.has_system
    assert found.turns == (
        Turn("Why?", (("system", "Be brief."), ("assistant", "Hello.")), None),
        Turn("Well?", (), 1),
    )


def test_turns_follow_each_other_at_one_station(tmp_path: Path) -> None:
    requests = _plan(_file(tmp_path, *_talks(5)), mean_interval="4 s", think_time="2 s")
    by_talk = {number: [one for one in requests if one.conversation == number] for number in range(requests[-1].id)}
    whole = [own for own in by_talk.values() if len(own) == 3]
    assert len(whole) > 5
    for own in whole:
        assert [one.turn for one in own] == [0, 1, 2]
        assert [one.after for one in own] == [None, own[0].id, own[1].id]
        assert len({one.station for one in own}) == 1
        assert [one.think_ns for one in own] == [0, 2 * NS_PER_S, 2 * NS_PER_S]
        assert [one.t_due_ns - own[0].t_due_ns for one in own] == [0, 2 * NS_PER_S, 4 * NS_PER_S]
    assert [own[0].conversation_id for own in whole[:5]] != ["1", "2", "3", "4", "5"]
    assert {own[0].conversation_id for own in whole[:5]} == {"1", "2", "3", "4", "5"}  # each once before any again


def test_think_times_leave_arrivals_and_choices_as_they_were(tmp_path: Path) -> None:
    file = _file(tmp_path, *_talks(5))

    def firsts(**changes: object):
        found = _plan(file, mean_interval="4 s", stop_after="30 s", **changes)
        return [(one.t_due_ns, one.station, one.conversation_id) for one in found if not one.turn]

    assert firsts() == firsts(think_time="1 s") == firsts(think_time={"distribution": "exponential", "mean": "1 s"})


def test_one_question_at_a_time_is_that_of_conversations_too(tmp_path: Path) -> None:
    requests = _plan(_file(tmp_path, *_talks(2)), arrivals="single-stream", count=2)
    for station in STATIONS:
        own = [one for one in requests if one.station == station]
        assert [one.turn for one in own] == [0, 1, 2, 0, 1, 2]
        assert [one.after for one in own] == [None, *(one.id for one in own[:-1])]


def test_users_have_one_conversation_after_another(tmp_path: Path) -> None:
    requests = _plan(_file(tmp_path, *_talks(2)), arrivals="users", users_per_station=1, think_time="10 s")
    for user in (0, 1):
        own = [one for one in requests if one.user == user]
        assert [one.turn for one in own] == [0, 1, 2, 0, 1, 2]
        assert [one.after for one in own] == [None, *(one.id for one in own[:-1])]
        assert len({one.conversation for one in own}) == 2
    assert len({one.conversation for one in requests}) == 4


def test_the_whole_context_is_asked_with_a_turn(tmp_path: Path) -> None:
    file = _file(tmp_path, [("user", "Why?"), ("assistant", "So."), ("user", "How?"), ("assistant", "Thus.")])
    first, second = _plan(file, arrivals="offline", count=1, system="Be brief.")
    assert PlannedRequest.from_json(json.loads(json.dumps(second.to_json()))) == second
    asked = [body(first, first.before), body(second, second.context_after(first, first.before))]
    texts = [[(one["role"], one["content"]) for one in each["messages"]] for each in asked]
    begin = [("system", "Be brief."), ("user", "Why?")]
    assert texts == [begin, [*begin, ("assistant", "So."), ("user", "How?")]]
    assert count_tokens(asked[1]["messages"]) > count_tokens(asked[0]["messages"])
    (next_talk,) = _plan(
        _file(tmp_path, [("system", "Sing."), ("user", "Who?")]), arrivals="offline", count=1, system="x"
    )
    other = replace(next_talk, conversation=1)
    alone = body(other, other.context_after(second, ()))["messages"]
    assert [one["content"] for one in alone] == ["Sing.", "Who?"]  # its own system message takes the scenario's place


def test_answers_are_as_long_as_the_files_replies(tmp_path: Path) -> None:
    talk = [("user", "a"), ("assistant", "x" * 46), ("user", "b"), ("assistant", "x" * 4600), ("user", "c")]
    requests = _plan(_file(tmp_path, talk), arrivals="offline", count=1)
    assert [(one.max_tokens, one.exact_length) for one in requests] == [(10, True), (100, True), (100, False)]


def test_a_context_that_outgrows_the_models_is_refused(tmp_path: Path) -> None:
    talk = [(role, "word " * 400) for _ in range(3) for role in ("user", "assistant")]
    requests = _plan(_file(tmp_path, talk), arrivals="offline", count=1)
    check_fit(requests, 5 * 250 + 100)  # five texts of 2,000 signs, eight to a token, and an answer
    with pytest.raises(ScenarioError, match="1 of 3 need more than"):
        check_fit(requests, 5 * 250 + 99)
