"""The endpoint in front of a pipeline speaks as llama.cpp's server does, whatever chooses the tokens."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse
from threading import Event

import pytest

from isl_emu.parts.questions.connection import EventParser
from isl_emu.parts.split.front import (
    Conversation,
    UnanswerableError,
    WantedAnswer,
    answering_questions,
    arriving,
    chunks,
)

QUESTION = {"messages": [{"role": "user", "content": "Why?"}], "max_tokens": 3}
END = 0
PATIENCE_S = 60.0


def spelt(tokens: Sequence[int]) -> str:
    """Tokens are bytes of UTF-8; an unfinished character at the end is left out."""
    return bytes(tokens).decode(errors="ignore")


class Parrot:
    """Answers every question with the same tokens, at once."""

    def __init__(self, tokens: Sequence[int]):
        self._tokens = tokens
        self.asked: list[WantedAnswer] = []

    def start(self, wish: WantedAnswer, tell: Callable[[int | None], None]) -> Conversation:
        self.asked.append(wish)
        if len(wish.messages[0]["content"]) > 100:
            raise UnanswerableError("the prompt is too long")
        conversation = Conversation([1, 2, 3], wish.limit, wish.temperature, wish.seed, tell)
        conversation.begin()
        for token in self._tokens:
            if conversation.finish is None:
                conversation.take(token, {END})
        return conversation

    def text(self, tokens: Sequence[int]) -> str:
        return spelt(tokens)

    def counts(self) -> dict[str, int]:
        return {"processing": 1, "deferred": 2, "predicted": 3}


@dataclass(frozen=True)
class FrontServer:
    """Where a parrot answers."""

    address: tuple[str, int]
    answerer: Parrot


@pytest.fixture
def server() -> Iterator[FrontServer]:
    parrot = Parrot([*"Grü".encode(), END])
    with answering_questions(parrot, "127.0.0.1", 0) as address:
        yield FrontServer(address, parrot)


def asked(server: FrontServer, method: str, path: str, body: object = None) -> HTTPResponse:
    connection = HTTPConnection(*server.address, timeout=PATIENCE_S)
    connection.request(method, path, None if body is None else json.dumps(body))
    return connection.getresponse()


def test_a_whole_answer_has_text_usage_and_timings(server: FrontServer) -> None:
    answer = json.loads(asked(server, "POST", "/v1/chat/completions", {**QUESTION, "max_tokens": 9}).read())
    (choice,) = answer["choices"]
    assert choice["message"]["content"] == "Grü"
    assert choice["finish_reason"] == "stop"
    assert answer["usage"] == {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    assert answer["timings"]["predicted_ms"] >= 0


def test_a_stream_ends_with_the_totals_and_done(server: FrontServer) -> None:
    question = {**QUESTION, "stream": True, "temperature": 0.5, "seed": 7}
    response = asked(server, "POST", "/v1/chat/completions", question)
    *events, done = EventParser().feed(response.read())
    events = [json.loads(event) for event in events]
    assert done == "[DONE]"
    assert [event["choices"][0]["delta"].get("content") for event in events] == ["G", "r", None]
    assert events[-1]["choices"][0]["finish_reason"] == "length"  # the third token is half a character
    assert events[-1]["usage"]["completion_tokens"] == 3
    assert server.answerer.asked == [WantedAnswer(QUESTION["messages"], 3, 0.5, 7)]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({**QUESTION, "messages": [{"role": "user", "content": "x" * 101}]}, "the prompt is too long"),
        ({"stream": True}, "it is no question: KeyError('messages')"),
        ([], "it is no question: TypeError"),
    ],
)
def test_what_cannot_be_answered_is_refused_with_a_reason(server: FrontServer, body: object, reason: str) -> None:
    response = asked(server, "POST", "/v1/chat/completions", body)
    assert response.status == 400
    assert json.loads(response.read())["error"]["message"].startswith(reason)


def test_health_and_metrics_are_those_of_llama_cpp(server: FrontServer) -> None:
    assert json.loads(asked(server, "GET", "/health").read()) == {"status": "ok"}
    metrics = asked(server, "GET", "/metrics").read().decode()
    assert metrics.splitlines()[:2] == ["llamacpp:requests_processing 1", "llamacpp:requests_deferred 2"]
    assert asked(server, "GET", "/elsewhere").status == 404


def answered(tokens: bytes, limit: int) -> tuple[Conversation, asyncio.Queue[int | None]]:
    """A conversation with a parrot, and what it told."""
    news = asyncio.Queue[int | None]()
    wish = WantedAnswer([{"content": ""}], limit, 0.0, 0)
    return Parrot(tokens).start(wish, news.put_nowait), news


async def told(conversation: Conversation, news: asyncio.Queue[int | None]) -> list[str | None]:
    return [event["choices"][0]["delta"].get("content") async for event in chunks(conversation, news, spelt)]


def test_a_character_is_told_once_it_is_whole() -> None:
    conversation, news = answered("aßb".encode(), 9)
    conversation.end("stop")
    assert asyncio.run(told(conversation, news)) == ["a", "ß", "b", None]


def test_a_cut_answer_says_that_its_length_ended_it() -> None:
    async def tokens() -> list[int]:
        return [token async for token in arriving(news)]

    conversation, news = answered(b"abcdef", 2)
    assert (asyncio.run(tokens()), conversation.finish) == ([*b"ab"], "length")


def test_nothing_more_is_computed_for_who_has_gone(server: FrontServer) -> None:
    """The parrot is silent, so the answer would never come."""
    silent, conversations = Event(), []

    def start(wish: WantedAnswer, tell: Callable[[int | None], None]) -> Conversation:
        conversations.append(Conversation([1], wish.limit, 0.0, 0, tell))
        silent.set()
        return conversations[0]

    server.answerer.start = start  # type: ignore[method-assign]  # this one does not answer
    connection = HTTPConnection(*server.address, timeout=PATIENCE_S)
    connection.request("POST", "/v1/chat/completions", json.dumps(QUESTION))
    assert silent.wait(PATIENCE_S)
    connection.close()
    end_s = time.monotonic() + PATIENCE_S
    while not conversations[0].cancelled:
        assert time.monotonic() < end_s
        time.sleep(0.01)
