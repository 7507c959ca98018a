"""An OpenAI-compatible endpoint in front of a pipeline, with the paths of llama.cpp's server that a run uses."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol

from isl_emu.parts.split.conversation import Conversation

MODEL_NAME = "sat"
METRICS = {  # names of llama.cpp's server
    "processing": "requests_processing",
    "deferred": "requests_deferred",
    "predicted": "tokens_predicted_total",
}
DEFAULT_TOKENS = 256  # of an answer, for a question that does not say how long it may be


class RefusedError(ValueError):
    """A question that cannot be answered."""


class Answerer(Protocol):
    """What answers questions."""

    def start(self, messages: Sequence[dict[str, str]], limit: int, temperature: float, seed: int) -> Conversation:
        """Begin to answer.

        Raises:
            RefusedError: it cannot be answered.
        """

    def text(self, tokens: Sequence[int]) -> str:
        """What tokens mean."""

    def counts(self) -> dict[str, int]:
        """`processing` and `deferred` questions, and `predicted` tokens so far."""


class FrontServer(ThreadingHTTPServer):
    """Answers questions over HTTP, each in a thread of its own."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], answerer: Answerer):
        super().__init__(address, _Handler)
        self.answerer = answerer


class _Handler(BaseHTTPRequestHandler):
    server: FrontServer
    disable_nagle_algorithm = True  # a token is a small packet, and is not to wait for the next one

    def log_message(self, *_: Any) -> None:
        """Silent: what is asked is in the run's journal."""

    def do_GET(self) -> None:
        if self.path == "/health":
            self._reply(200, json.dumps({"status": "ok"}), "application/json")
        elif self.path == "/metrics":
            self._reply(200, metrics_text(self.server.answerer.counts()), "text/plain")
        else:
            self._refuse(404, f"there is no {self.path}")

    def do_POST(self) -> None:
        if self.path != "/v1/chat/completions":
            self._refuse(404, f"there is no {self.path}")
            return
        with suppress(ConnectionError):  # whoever asked has gone
            self._answer()

    def _answer(self) -> None:
        try:
            question = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
            conversation = self.server.answerer.start(
                question["messages"],
                question.get("max_tokens") or DEFAULT_TOKENS,
                question.get("temperature", 0.0),
                question.get("seed", 0),
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            self._refuse(400, str(error) if isinstance(error, RefusedError) else f"it is no question: {error!r}")
            return
        try:
            (self._stream if question.get("stream") else self._whole)(conversation)
        finally:
            conversation.cancelled = True

    def _stream(self, conversation: Conversation) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for event in chunks(conversation, self.server.answerer.text):
            self.wfile.write(b"data: " + json.dumps(event).encode() + b"\n\n")
        self.wfile.write(b"data: [DONE]\n\n")

    def _whole(self, conversation: Conversation) -> None:
        tokens = list(conversation.arriving())
        message = {"role": "assistant", "content": self.server.answerer.text(tokens)}
        answer = {
            **_head("chat.completion"),
            "choices": [{"index": 0, "message": message, "finish_reason": conversation.finish}],
            **_totals(conversation),
        }
        self._reply(200, json.dumps(answer), "application/json")

    def _refuse(self, status: int, reason: str) -> None:
        error = {"code": status, "message": reason, "type": "invalid_request_error"}
        self._reply(status, json.dumps({"error": error}), "application/json")

    def _reply(self, status: int, text: str, kind: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def chunks(conversation: Conversation, text: Callable[[Sequence[int]], str]) -> Iterator[dict[str, Any]]:
    """The events of a streamed answer as its tokens come; a token that completes no character waits for the next."""
    tokens: list[int] = []
    told = 0
    for token in conversation.arriving():
        tokens.append(token)
        so_far = text(tokens)
        if len(so_far) > told:
            yield _chunk({"content": so_far[told:]}, None)
            told = len(so_far)
    yield {**_chunk({}, conversation.finish), **_totals(conversation)}


def metrics_text(counts: dict[str, int]) -> str:
    """In Prometheus' format."""
    return "".join(f"llamacpp:{METRICS[key]} {value}\n" for key, value in counts.items())


def _chunk(delta: dict[str, Any], finish: str | None) -> dict[str, Any]:
    return {**_head("chat.completion.chunk"), "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def _head(kind: str) -> dict[str, str]:
    return {"object": kind, "model": MODEL_NAME}


def _totals(conversation: Conversation) -> dict[str, Any]:
    return {"usage": conversation.usage(), "timings": conversation.timings()}
