"""The endpoint in front of a pipeline speaks as llama.cpp's server does, whatever chooses the tokens."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from http.client import HTTPConnection, HTTPResponse

import pytest

from isl_emu.parts.questions.sse import EventParser
from isl_emu.parts.split.conversation import Conversation
from isl_emu.parts.split.front import FrontServer, RefusedError, chunks

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
        self.asked: list[tuple[int, float, int]] = []

    def start(self, messages: Sequence[dict[str, str]], limit: int, temperature: float, seed: int) -> Conversation:
        self.asked.append((limit, temperature, seed))
        if len(messages[0]["content"]) > 100:
            raise RefusedError("the prompt is too long")
        conversation = Conversation([1, 2, 3], limit, temperature, seed)
        conversation.begin()
        for token in self._tokens:
            if conversation.finish is None:
                conversation.take(token, {END})
        return conversation

    def text(self, tokens: Sequence[int]) -> str:
        return spelt(tokens)

    def counts(self) -> dict[str, int]:
        return {"processing": 1, "deferred": 2, "predicted": 3}


@pytest.fixture
def server() -> Iterator[FrontServer]:
    with FrontServer(("127.0.0.1", 0), Parrot([*"Grü".encode(), END])) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def asked(server: FrontServer, method: str, path: str, body: object = None) -> HTTPResponse:
    connection = HTTPConnection(*server.server_address, timeout=PATIENCE_S)
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
    assert server.answerer.asked == [(3, 0.5, 7)]


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


def test_a_character_is_told_once_it_is_whole() -> None:
    conversation = Parrot("aßb".encode()).start([{"content": ""}], 9, 0.0, 0)
    conversation.end("stop")
    told = [event["choices"][0]["delta"].get("content") for event in chunks(conversation, spelt)]
    assert told == ["a", "ß", "b", None]


def test_a_cut_answer_says_that_its_length_ended_it() -> None:
    conversation = Parrot(b"abcdef").start([{"content": ""}], 2, 0.0, 0)
    assert (list(conversation.arriving()), conversation.finish) == ([*b"ab"], "length")
