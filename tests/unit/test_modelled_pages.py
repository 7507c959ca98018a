"""A modelled server over HTTP, on this machine's loopback: what clients of llama.cpp's server find in its answers."""

from __future__ import annotations

import asyncio
import json
import socket
from array import array
from collections.abc import Callable
from dataclasses import replace
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, web

from isl_emu.parts.questions.connection import EventParser
from isl_emu.parts.serving.modelled_engine import ModelledSatellite
from isl_emu.parts.serving.modelled_server import MARK, answer_tokens, application, count_tokens
from isl_emu.parts.serving.modelled_specification import Specification, read_specifications, write_specifications
from isl_emu.parts.serving.modelled_state import ModelledState
from isl_emu.scenario.models import model_named
from isl_emu.timebase import MonotonicClock

ADDRESS = "127.0.0.1"
SPEC = Specification("p00s00", "", ADDRESS, 0, "h100-pcie", "smollm2-135m", 4, 2, 256)
QUESTION = {"messages": [{"role": "user", "content": "Why is the sky blue?"}], "max_tokens": 12, "seed": 5}
MS_PER_NS = 1e-6
a_microsecond_ms = 1e-3


def serving(tmp_path: Path, ask: Callable[[int], Any]) -> tuple[Any, ModelledState]:
    """What `ask` returns, called in a thread with the port of a live server; and the state that is left."""
    state = ModelledState.create(tmp_path / "state", [SPEC.satellite])

    async def serve() -> Any:
        server = ModelledSatellite(SPEC, 0, state, MonotonicClock(), array("q"))
        runner = web.AppRunner(application({ADDRESS: server}), access_log=None, handle_signals=False)
        await runner.setup()
        listening = socket.create_server((ADDRESS, 0))
        await web.SockSite(runner, listening).start()
        try:
            return await asyncio.to_thread(ask, listening.getsockname()[1])
        finally:
            await runner.cleanup()

    return asyncio.run(serve()), state


def post(port: int, body: Any) -> tuple[int, bytes]:
    connection = HTTPConnection(ADDRESS, port, timeout=60)
    connection.request("POST", "/v1/chat/completions", body if isinstance(body, bytes) else json.dumps(body))
    response = connection.getresponse()
    return response.status, response.read()


def get(port: int, path: str) -> tuple[int, str]:
    connection = HTTPConnection(ADDRESS, port, timeout=60)
    connection.request("GET", path)
    response = connection.getresponse()
    return response.status, response.read().decode()


def test_a_streamed_answer_has_its_tokens_counts_and_times(tmp_path: Path) -> None:
    (status, data), state = serving(tmp_path, lambda port: post(port, {**QUESTION, "stream": True}))
    *events, end = EventParser().feed(data)
    bodies = [json.loads(event) for event in events]
    texts = [choice["delta"].get("content") for body in bodies for choice in body["choices"]]
    answer = [text for text in texts if text]
    assert (status, end, len(answer), answer[0]) == (200, "[DONE]", 12, MARK)
    assert {body["model"] for body in bodies} == {"modelled:smollm2-135m@h100-pcie"}
    last, tokens = bodies[-1], count_tokens(QUESTION["messages"])
    assert last["usage"] == {"prompt_tokens": tokens, "completion_tokens": 12, "total_tokens": tokens + 12}
    steps_ns = sum(SPEC.roofline.step_ns(tokens + answered) for answered in range(12))
    prompt_ns = SPEC.roofline.prompt_ns(tokens)
    assert last["timings"]["prompt_ms"] == pytest.approx(prompt_ns * MS_PER_NS, abs=a_microsecond_ms)
    assert last["timings"]["predicted_ms"] == pytest.approx(steps_ns * MS_PER_NS, abs=a_microsecond_ms)
    assert (state.tokens[0], state.busy_ns[0]) == (12, pytest.approx(prompt_ns + steps_ns, abs=13))


def test_a_prompt_that_begins_alike_is_read_only_where_it_is_new(tmp_path: Path) -> None:
    long = {**QUESTION, "messages": [{"role": "user", "content": "Why is the sky blue? " * 20}]}
    may = {**long, "cache_prompt": True}

    def ask(port: int) -> list[dict[str, Any]]:
        return [json.loads(post(port, body)[1]) for body in (may, may, long)]

    (first, second, without), _ = serving(tmp_path, ask)
    tokens = count_tokens(long["messages"])
    assert {body["usage"]["prompt_tokens"] for body in (first, second, without)} == {tokens}
    assert [body["timings"]["prompt_n"] for body in (first, second, without)] == [tokens, tokens % 16, tokens]
    assert [body["timings"].get("cache_n") for body in (first, second, without)] == [0, tokens - tokens % 16, None]


LONG = [{"role": "user", "content": "Why is the sky blue? " * 20}]


def answers_in_turn(tmp_path: Path, *specs: Specification) -> list[dict[str, Any]]:
    """The timings of the same long question, asked at one server after another; each is told of the one before."""
    state = ModelledState.create(tmp_path / "state", [spec.satellite for spec in specs])

    async def serve() -> list[dict[str, Any]]:
        clock = MonotonicClock()
        servers = [ModelledSatellite(spec, row, state, clock, array("q")) for row, spec in enumerate(specs)]
        runner = web.AppRunner(application({server.spec.address: server for server in servers}), access_log=None)
        await runner.setup()
        found, before, may = [], None, {**QUESTION, "messages": LONG, "cache_prompt": True}
        try:
            async with ClientSession() as session:
                for spec in specs:
                    listening = socket.create_server((spec.address, 0))
                    await web.SockSite(runner, listening).start()
                    port = listening.getsockname()[1]
                    told = {"kv_transfer_params": before} if before else {}
                    async with session.post(
                        f"http://{spec.address}:{port}/v1/chat/completions", json={**may, **told}
                    ) as got:
                        found.append((await got.json())["timings"])
                    before = {"do_remote_prefill": True, "remote_host": spec.address, "remote_port": port}
        finally:
            await runner.cleanup()
        return found

    return asyncio.run(serve())


def test_what_another_server_has_read_moves_and_is_not_read_again(tmp_path: Path) -> None:
    tokens = count_tokens(LONG)
    here, there = SPEC, replace(SPEC, satellite="p00s01", address="127.0.0.2", rate_scale=0.01)
    first, second = answers_in_turn(tmp_path, here, there)
    assert (first["prompt_n"], first["cache_n"], first.get("moved_n")) == (tokens, 0, None)
    moved = tokens - tokens % 16
    assert (second["prompt_n"], second["cache_n"], second["moved_n"]) == (tokens % 16, moved, moved)
    assert second["moved_byte"] == moved * model_named("smollm2-135m").kv_byte_per_token
    assert second["moved_ms"] > 0


@pytest.mark.parametrize("other", [{"bits": 8}, {"model": "qwen3-0-6b"}])
def test_what_another_model_has_read_is_read_again(tmp_path: Path, other: dict[str, Any]) -> None:
    _, second = answers_in_turn(tmp_path, SPEC, replace(SPEC, satellite="p00s01", address="127.0.0.2", **other))
    assert (second["prompt_n"], second["cache_n"], second["moved_n"]) == (count_tokens(LONG), 0, 0)


def test_what_cannot_be_had_is_read(tmp_path: Path) -> None:
    nobody = {"do_remote_prefill": True, "remote_host": "127.0.0.3", "remote_port": 9}
    body = {**QUESTION, "messages": LONG, "cache_prompt": True, "kv_transfer_params": nobody}
    (status, data), _ = serving(tmp_path, lambda port: post(port, body))
    found = json.loads(data)["timings"]
    assert (status, found["prompt_n"], found["moved_n"]) == (200, count_tokens(LONG), 0)


def test_the_same_answer_comes_whole_too(tmp_path: Path) -> None:
    def ask(port: int) -> list[str]:
        whole = [json.loads(post(port, QUESTION)[1]) for _ in range(2)]
        return [body["choices"][0]["message"]["content"] for body in whole]

    (first, second), _ = serving(tmp_path, ask)
    assert first == second  # the same seed
    assert len(first.split()) == 12


def test_health_and_metrics_are_those_of_an_idle_server(tmp_path: Path) -> None:
    def ask(port: int) -> tuple[tuple[int, str], tuple[int, str], tuple[int, str]]:
        post(port, QUESTION)
        return get(port, "/health"), get(port, "/metrics"), get(port, "/v1/models")

    (health, metrics, models), _ = serving(tmp_path, ask)
    assert health == (200, '{"status": "ok"}')
    lines = metrics[1].splitlines()
    assert "llamacpp:requests_processing 0" in lines and "llamacpp:tokens_predicted_total 12" in lines
    assert "modelled:smollm2-135m@h100-pcie" in models[1]


@pytest.mark.parametrize(
    ("body", "status", "sentence"),
    [
        (b"{", 400, "is no chat completion"),
        ({}, 400, "it has no messages"),
        ({"messages": [{"role": "user", "content": "why " * 400}]}, 400, r"exceeds the available context size (256"),
    ],
)
def test_a_request_that_cannot_be_served_is_refused(tmp_path: Path, body: Any, status: int, sentence: str) -> None:
    (found, text), _ = serving(tmp_path, lambda port: post(port, body))
    assert found == status and sentence in json.loads(text)["error"]["message"]


def test_a_server_without_power_refuses(tmp_path: Path) -> None:
    def ask(port: int) -> tuple[tuple[int, bytes], int]:
        ModelledState.open(tmp_path / "state").pace_ratio[0] = 0.0
        return post(port, QUESTION), get(port, "/health")[0]

    ((status, text), health), _ = serving(tmp_path, ask)
    assert (status, health) == (503, 503) and b"switched its computer off" in text


def test_an_answer_ends_where_the_context_does(tmp_path: Path) -> None:
    (_, data), _ = serving(tmp_path, lambda port: post(port, {**QUESTION, "max_tokens": 1000}))
    assert json.loads(data)["usage"]["total_tokens"] == SPEC.context_tokens


def test_specifications_survive_their_file(tmp_path: Path) -> None:
    write_specifications([SPEC], tmp_path)
    assert read_specifications(tmp_path) == [SPEC]
    assert ModelledState.open(tmp_path / "modelled_state").names == ("p00s00",)


def test_tokens_are_as_long_as_those_of_english_text() -> None:
    source = answer_tokens("any")
    text = "".join(next(source) for _ in range(2000))
    assert 3.5 < len(text) / 2000 < 5.5
    assert count_tokens([{"role": "user", "content": text}]) == pytest.approx(2000, rel=0.4)


def test_the_openai_client_understands_it(tmp_path: Path) -> None:
    openai = pytest.importorskip("openai", reason="the extra clients brings it")
    parts = [{"type": "text", "text": QUESTION["messages"][0]["content"]}]

    def ask(port: int) -> tuple[Any, Any, list[Any], Any]:
        client = openai.OpenAI(base_url=f"http://{ADDRESS}:{port}/v1", api_key="none", max_retries=0)
        (model,) = client.models.list()
        wish = {"model": model.id, "max_completion_tokens": 12, "seed": 5}
        whole = client.chat.completions.create(messages=QUESTION["messages"], **wish)
        options = {"stream": True, "stream_options": {"include_usage": True}}
        streamed = list(
            client.chat.completions.create(messages=[{"role": "user", "content": parts}], **wish, **options)
        )
        with pytest.raises(openai.BadRequestError) as refused:
            client.chat.completions.create(messages=[], **wish)
        return model, whole, streamed, refused.value

    (model, whole, streamed, refused), _ = serving(tmp_path, ask)
    assert (model.id, model.owned_by) == ("modelled:smollm2-135m@h100-pcie", "isl-emu")
    assert (whole.choices[0].finish_reason, len(whole.choices[0].message.content.split())) == ("length", 12)
    texts = [chunk.choices[0].delta.content for chunk in streamed if chunk.choices]
    assert len([text for text in texts if text]) == 12
    assert streamed[-1].usage == whole.usage  # a text in parts is as long
    assert whole.usage.completion_tokens == 12
    assert "no messages" in str(refused)
