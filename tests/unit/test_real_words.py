"""A real server's answer told at a board's pace, on this machine's loopback: a script stands for the real server."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from array import array
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from isl_emu.parts.serving.modelled_engine import ModelledSatellite
from isl_emu.parts.serving.modelled_server import application
from isl_emu.parts.serving.modelled_specification import Specification, read_specifications, write_specifications
from isl_emu.parts.serving.modelled_state import ModelledState
from isl_emu.parts.serving.real_words import StreamEvent, WordsError, job_of, stream_events
from isl_emu.runs.loop import run_loop
from isl_emu.scenario.models import model_named
from isl_emu.timebase import MonotonicClock

ADDRESS = "127.0.0.1"
SPEC = Specification("p00s00", "", ADDRESS, 0, "three-body", "smollm2-135m", 4, 2, 256)
PROMPT_TOKENS, CACHED_TOKENS = 40, 3
WORDS = ["The", " sky", " is", " blue"]  # and a last token without text, that of the end
TOKENS = len(WORDS) + 1
QUESTION = {"messages": [{"role": "user", "content": "Why is the sky blue?"}]}
CHAT = "/v1/chat/completions"
a_microsecond_ms = 1e-3
busy_machine_ns = 500_000_000


def counts(answered: int) -> dict[str, float]:
    """The times of the script, which are nobody's."""
    return {"prompt_n": PROMPT_TOKENS, "cache_n": CACHED_TOKENS, "prompt_ms": 9e5, "predicted_n": answered,
            "predicted_ms": 9e5}  # fmt: skip


def streamed() -> bytes:
    """An answer as llama.cpp streams it."""
    bodies: list[dict[str, Any]] = [{"choices": [{"delta": {"role": "assistant", "content": None}}]}]
    for number, word in enumerate(WORDS, 1):
        bodies.append({"choices": [{"delta": {"content": word}}], "timings": counts(number)})
    bodies.append({"choices": [{"delta": {}, "finish_reason": "stop"}]})
    bodies.append({"choices": [], "usage": {"completion_tokens": TOKENS}, "timings": counts(TOKENS)})
    return b"".join(b"data: " + json.dumps(body).encode() + b"\n\n" for body in bodies) + b"data: [DONE]\n\n"


def whole() -> bytes:
    message = {"role": "assistant", "content": "".join(WORDS)}
    return json.dumps({"choices": [{"message": message}], "timings": counts(TOKENS)}).encode()


def script(asked: list[Any]) -> web.Application:
    """What stands for the real server: it answers at once, and keeps what it was asked."""

    async def chat(request: web.Request) -> web.Response:
        question = await request.json()
        asked.append(question)
        if "full" in str(question):
            return web.json_response({"error": {"message": "exceeds the available context size"}}, status=400)
        if "break" in str(question):
            return web.Response(body=streamed()[:200], content_type="text/event-stream")
        if question.get("stream"):
            return web.Response(body=streamed(), content_type="text/event-stream")
        return web.Response(body=whole(), content_type="application/json")

    async def page(request: web.Request) -> web.Response:
        return web.json_response({"page": request.path})

    app = web.Application()
    app.router.add_post(CHAT, chat)
    app.router.add_post("/completion", chat)
    app.router.add_get("/{path:.*}", page)
    return app


def serving(tmp_path: Path, ask: Callable[[int], Any], spec: Specification = SPEC, dead: bool = False) -> Any:
    """What `ask` returns, called in a thread with the port of the server in front."""
    state = ModelledState.create(tmp_path / "state", [spec.satellite])

    async def listen(app: web.Application) -> tuple[web.AppRunner, int]:
        runner = web.AppRunner(app, access_log=None, handle_signals=False)
        await runner.setup()
        listening = socket.create_server((ADDRESS, 0))
        await web.SockSite(runner, listening).start()
        return runner, listening.getsockname()[1]

    async def serve() -> Any:
        behind, port = await listen(script([]))
        if dead:
            await behind.cleanup()
        server = ModelledSatellite(replace(spec, words_port=port), 0, state, MonotonicClock(), array("q"))
        front, port = await listen(application({ADDRESS: server}))
        try:
            return await asyncio.to_thread(ask, port)
        finally:
            await front.cleanup()
            await behind.cleanup()

    return run_loop(serve())


def post(port: int, question: dict[str, Any], path: str = CHAT) -> tuple[int, list[tuple[int, str]]]:
    """Status and lines of an answer, each with when it came."""
    connection = HTTPConnection(ADDRESS, port, timeout=60)
    connection.request("POST", path, json.dumps(question))
    response = connection.getresponse()
    return response.status, [(time.monotonic_ns(), line.decode().strip()) for line in response if line.strip()]


def bodies(lines: list[tuple[int, str]]) -> list[dict[str, Any]]:
    return [json.loads(line.removeprefix("data: ")) for _, line in lines if "[DONE]" not in line]


def board_ms(spec: Specification = SPEC) -> tuple[float, float]:
    """What the board takes for the prompt and for the answer, alone."""
    context = PROMPT_TOKENS + CACHED_TOKENS
    steps_ns = sum(round(spec.pace.step_ns(context + answered)) for answered in range(TOKENS))
    return round(spec.pace.prompt_ns(PROMPT_TOKENS)) / 1e6, steps_ns / 1e6


def test_real_words_come_at_the_pace_of_the_board(tmp_path: Path) -> None:
    spec = replace(SPEC, model="qwen3-8b")
    begun_ns = time.monotonic_ns()
    status, lines = serving(tmp_path, lambda port: post(port, {**QUESTION, "stream": True}), spec)
    prompt_ms, answer_ms = board_ms(spec)
    *events, last = bodies(lines)
    texts = [choice["delta"].get("content") for event in events for choice in event["choices"]]
    assert (status, [text for text in texts if text], lines[-1][1]) == (200, WORDS, "data: [DONE]")
    assert not any("timings" in event for event in events)
    assert last["usage"] == {"completion_tokens": TOKENS}
    assert last["timings"]["prompt_ms"] == pytest.approx(prompt_ms, abs=a_microsecond_ms)
    assert last["timings"]["predicted_ms"] == pytest.approx(answer_ms, abs=a_microsecond_ms)
    assert (last["timings"]["prompt_n"], last["timings"]["predicted_n"]) == (PROMPT_TOKENS, TOKENS)
    assert last["timings"]["cache_n"] == CACHED_TOKENS
    came_ns = [at for at, line in lines if any(f'"content":"{word}"' in line for word in WORDS)]
    step_ns = spec.pace.step_ns(PROMPT_TOKENS + CACHED_TOKENS)
    assert came_ns[0] - begun_ns >= prompt_ms * 1e6 + step_ns  # nothing comes before the board has it
    assert came_ns[-1] - came_ns[0] == pytest.approx((len(WORDS) - 1) * step_ns, abs=busy_machine_ns)


@pytest.mark.parametrize("path", [CHAT, "/completion"])
def test_an_answer_that_is_not_streamed_comes_when_it_is_done(tmp_path: Path, path: str) -> None:
    status, lines = serving(tmp_path, lambda port: post(port, QUESTION, path))
    (answer,), (prompt_ms, answer_ms) = bodies(lines), board_ms()
    assert (status, answer["choices"][0]["message"]["content"]) == (200, "".join(WORDS))
    assert answer["timings"]["prompt_ms"] == pytest.approx(prompt_ms, abs=a_microsecond_ms)
    assert answer["timings"]["predicted_ms"] == pytest.approx(answer_ms, abs=a_microsecond_ms)


def test_two_questions_wait_for_each_other_where_there_is_one_slot(tmp_path: Path) -> None:
    spec = replace(SPEC, slots=1, board="", model="", bits=0, decode_tokens_s=20.0)

    def both(port: int) -> list[int]:
        with ThreadPoolExecutor(2) as pool:
            answers = list(pool.map(lambda _: post(port, {**QUESTION, "stream": True}), range(2)))
        return sorted(lines[-1][0] for _, lines in answers)

    first_ns, second_ns = serving(tmp_path, both, spec)
    one_ns = 1e6 * sum(board_ms(spec))
    assert second_ns - first_ns == pytest.approx(one_ns, abs=busy_machine_ns)
    assert second_ns - first_ns > one_ns / 2


def refusal_of(found: tuple[int, list[tuple[int, str]]]) -> tuple[int, str]:
    status, lines = found
    return status, json.loads(lines[-1][1])["error"]["message"]


def test_a_real_server_that_is_gone_is_the_failure_of_the_question(tmp_path: Path) -> None:
    status, reason = refusal_of(serving(tmp_path, lambda port: post(port, {**QUESTION, "stream": True}), dead=True))
    assert (status, reason) == (503, "the real server of p00s00 did not answer: nobody listens there")


@pytest.mark.parametrize(
    ("said", "status", "sentence"),
    [("full", 400, "exceeds the available context size"), ("break", 502, "the real server broke off its answer")],
)
def test_what_the_real_server_refuses_is_refused(tmp_path: Path, said: str, status: int, sentence: str) -> None:
    question = {"messages": [{"role": "user", "content": said}], "stream": True}
    assert refusal_of(serving(tmp_path, lambda port: post(port, question))) == (status, sentence)


def test_a_server_without_power_asks_nobody(tmp_path: Path) -> None:
    def ask(port: int) -> tuple[int, list[tuple[int, str]]]:
        ModelledState.open(tmp_path / "state").pace_ratio[0] = 0.0
        return post(port, QUESTION)

    assert refusal_of(serving(tmp_path, ask))[0] == 503


def test_pages_that_need_no_computing_are_the_real_servers_own(tmp_path: Path) -> None:
    def ask(port: int) -> list[str]:
        found = []
        for path in ("/health", "/v1/models", "/slots", "/props"):
            connection = HTTPConnection(ADDRESS, port, timeout=60)
            connection.request("GET", path)
            found.append(json.loads(connection.getresponse().read())["page"])
        return found

    assert serving(tmp_path, ask) == ["/health", "/v1/models", "/slots", "/props"]


def test_an_event_comes_with_the_token_that_it_counts() -> None:
    events = stream_events(streamed())
    assert [event.token for event in events] == [1, 1, 2, 3, 4, 4, 5]
    assert all(isinstance(event, StreamEvent) for event in events)


def test_an_error_within_a_stream_is_a_failure() -> None:
    with pytest.raises(WordsError, match="ended its answer: {'message': 'out of cells'}"):
        stream_events(b'data: {"error": {"message": "out of cells"}}\n\ndata: [DONE]\n\n')
    with pytest.raises(WordsError, match="does not count its tokens"):
        job_of({}, 0)


def test_specifications_of_all_kinds_survive_their_file(tmp_path: Path) -> None:
    own = replace(SPEC, model="mine", shape=replace(model_named("qwen3-8b"), name="mine"), words_port=8081)
    stated = replace(SPEC, board="", model="", bits=0, decode_tokens_s=7.5)
    write_specifications([own, stated], tmp_path)
    assert read_specifications(tmp_path) == [own, stated]
    assert own.pace.step_ns(0) == replace(SPEC, model="qwen3-8b").pace.step_ns(0)
    assert stated.pace.step_ns(100, 2) == 2e9 / 7.5
