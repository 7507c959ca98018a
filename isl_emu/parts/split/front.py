"""An OpenAI-compatible endpoint in front of a pipeline, with the paths of llama.cpp's server that a run uses.

HTTP is spoken in a thread of its own; a conversation carries a question from there to the thread that runs the ring,
and the tokens back.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from aiohttp import web

from isl_emu.parts.http_server import answering
from isl_emu.parts.serving.completions import STREAMED, WHOLE, event, refusal, timings, usage

MODEL_NAME = "sat"
METRICS = {  # names of llama.cpp's server
    "processing": "requests_processing",
    "deferred": "requests_deferred",
    "predicted": "tokens_predicted_total",
}
DEFAULT_TOKENS = 256  # of an answer, for a question that does not say how long it may be
MS_PER_S = 1000
BACKLOG = 128
DONE = b"data: [DONE]\n\n"


class UnanswerableError(ValueError):
    """A question that cannot be answered."""


@dataclass(frozen=True)
class WantedAnswer:
    """What is asked, and how it is to be answered.

    Args:
        limit: the most tokens of the answer.
    """

    messages: Sequence[dict[str, str]]
    limit: int
    temperature: float
    seed: int

    @classmethod
    def from_json(cls, asked: Any) -> WantedAnswer:
        """The wish in a request's body; a KeyError, TypeError, AttributeError or ValueError if there is none."""
        messages, limit = asked["messages"], asked.get("max_tokens") or DEFAULT_TOKENS
        return cls(messages, limit, asked.get("temperature", 0.0), asked.get("seed", 0))


@dataclass(eq=False)
class Conversation:
    """A prompt and its answer so far.

    Args:
        tell: takes each token of the answer as it comes, and None after the last one.
        cancelled: nobody listens any more.
    """

    prompt: list[int]
    limit: int
    temperature: float
    seed: int
    tell: Callable[[int | None], None]
    tokens: list[int] = field(default_factory=list)
    cancelled: bool = False
    finish: str | None = None
    _marks_s: dict[str, float] = field(default_factory=dict)  # by the machine's clock, as llama.cpp's timings are

    def begin(self) -> None:
        """The prompt is on its way."""
        self._marks_s["begun"] = time.monotonic()

    def take(self, token: int, ends: set[int]) -> None:
        """The next token has come; one of `ends`, or the last that is allowed, finishes the answer."""
        self._marks_s.setdefault("first", time.monotonic())
        if token in ends:
            self.end("stop")
            return
        self.tokens.append(token)
        self.tell(token)
        if len(self.tokens) >= self.limit:
            self.end("length")

    def end(self, reason: str) -> None:
        """Nothing follows."""
        self.finish = reason
        self._marks_s["ended"] = time.monotonic()
        self.tell(None)

    def totals(self) -> dict[str, Any]:
        """The counts and times of the whole, as llama.cpp gives them: until the first token, and from there on."""
        begun_s, first_s, ended_s = (self._marks_s[mark] for mark in ("begun", "first", "ended"))
        count, prompt_ms, predicted_ms = len(self.tokens), first_s - begun_s, ended_s - first_s
        return {
            "usage": usage(len(self.prompt), count),
            "timings": timings(len(self.prompt), MS_PER_S * prompt_ms, count, MS_PER_S * predicted_ms),
        }


class Answerer(Protocol):
    """What answers questions."""

    def start(self, wish: WantedAnswer, tell: Callable[[int | None], None]) -> Conversation:
        """Begin to answer.

        Raises:
            UnanswerableError: it cannot be answered.
        """

    def text(self, tokens: Sequence[int]) -> str:
        """What tokens mean."""

    def counts(self) -> dict[str, int]:
        """`processing` and `deferred` questions, and `predicted` tokens so far."""


@contextmanager
def answering_questions(answerer: Answerer, address: str, port: int) -> Iterator[tuple[str, int]]:
    """Answer questions over HTTP while the block lasts; gives the address and port."""
    with socket.create_server((address, port), backlog=BACKLOG) as listening:
        place: tuple[str, int] = listening.getsockname()
        with answering(application(answerer), listening):
            yield place


def application(answerer: Answerer) -> web.Application:
    """The pages."""

    async def health(_: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(text=metrics_text(answerer.counts()))

    async def answer(request: web.Request) -> web.StreamResponse:
        return await _answer(answerer, request)

    async def nowhere(request: web.Request) -> web.Response:
        return _refused(404, f"there is no {request.path}")

    app = web.Application(client_max_size=0)  # the context says how long a prompt may be
    app.router.add_get("/health", health)
    app.router.add_get("/metrics", metrics)
    app.router.add_post("/v1/chat/completions", answer)
    app.router.add_route("*", "/{path:.*}", nowhere)
    return app


async def _answer(answerer: Answerer, request: web.Request) -> web.StreamResponse:
    """Have a question answered, whole or token by token; if whoever asked goes away, no more of it is computed."""
    loop, news = asyncio.get_running_loop(), asyncio.Queue[int | None]()

    def tell(token: int | None) -> None:
        loop.call_soon_threadsafe(news.put_nowait, token)

    try:
        question = await request.json()
        conversation = answerer.start(WantedAnswer.from_json(question), tell)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        return _refused(400, str(error) if isinstance(error, UnanswerableError) else f"it is no question: {error!r}")
    try:
        if not question.get("stream"):
            tokens = [token async for token in arriving(news)]
            message = {"role": "assistant", "content": answerer.text(tokens)}
            choices = [{"index": 0, "message": message, "finish_reason": conversation.finish}]
            whole = {"object": WHOLE, "model": MODEL_NAME, "choices": choices, **conversation.totals()}
            return web.json_response(whole)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        async for chunk in chunks(conversation, news, answerer.text):
            await response.write(event(chunk))
        await response.write(DONE)
        return response
    finally:
        conversation.cancelled = True


async def arriving(news: asyncio.Queue[int | None]) -> AsyncIterator[int]:
    """The tokens of an answer as they come."""
    while (token := await news.get()) is not None:
        yield token


async def chunks(
    conversation: Conversation, news: asyncio.Queue[int | None], text: Callable[[Sequence[int]], str]
) -> AsyncIterator[dict[str, Any]]:
    """The events of a streamed answer as its tokens come; a token that completes no character waits for the next."""
    tokens: list[int] = []
    told = 0
    async for token in arriving(news):
        tokens.append(token)
        so_far = text(tokens)
        if len(so_far) > told:
            yield _chunk({"content": so_far[told:]}, None)
            told = len(so_far)
    yield {**_chunk({}, conversation.finish), **conversation.totals()}


def metrics_text(counts: dict[str, int]) -> str:
    """In Prometheus' format."""
    return "".join(f"llamacpp:{METRICS[key]} {value}\n" for key, value in counts.items())


def _chunk(delta: dict[str, Any], finish: str | None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {"object": STREAMED, "model": MODEL_NAME, "choices": [choice]}


def _refused(status: int, reason: str) -> web.Response:
    return web.json_response(refusal(status, "invalid_request_error", reason), status=status)
