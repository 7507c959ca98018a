"""All servers at a board's pace in one process: an OpenAI-compatible server on each satellite.

Run as ``python -m isl_emu.parts.serving.modelled_server``. A listening socket in each satellite's network namespace
makes the packets take the emulated path; the tokens' times come from an `Engine` on the run's clock, so slow motion and
pauses hold for them. When it ends it writes into pace.jsonl how late tokens were against the model.

The pages: chat completions in OpenAI's format, health, metrics and the model's name. Servers with a real server behind
them give its words (`real_words`). The others answer words at random, as long as a language model's tokens, and marked
as what they are. A token of English text is four to five characters with its space. Questions are counted by that too,
since a modelled model has no vocabulary: as many tokens as prompts of a given length are made of, and some for each
message's template.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import signal
import socket
import struct
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from aiohttp import web

from isl_emu.parts.prompts import text_tokens, token_texts
from isl_emu.parts.residents import DEAD, GONE, IN_ORDER, STOPPED
from isl_emu.parts.serving import context_moves, real_words
from isl_emu.parts.serving.completions import WHOLE, chunk, last_chunk, metrics, refusal, usage
from isl_emu.parts.serving.listening import ListeningPlace, listen_at, own_address
from isl_emu.parts.serving.modelled_engine import Job, ModelledSatellite
from isl_emu.parts.serving.modelled_specification import PACE, Specification, read_specifications
from isl_emu.parts.serving.modelled_state import FILE as STATE_FILE
from isl_emu.parts.serving.modelled_state import ModelledState
from isl_emu.parts.serving.prefix_cache import block_digests
from isl_emu.parts.serving.real_words import PASSED_ON, pass_on
from isl_emu.runs.clock import run_clock
from isl_emu.runs.journal import Journal
from isl_emu.runs.loop import run_loop
from isl_emu.timebase import Clock

DEFAULT_ANSWER_TOKENS = 128  # of a request that does not say
COMPLETION = "/completion"  # llama.cpp's own form of it, which servers with real words have too
MESSAGE_TOKENS = 5  # role and delimiters
OWNER = "isl-emu"  # of a model, which OpenAI's clients want to know
MARK = "(modelled)"  # the first token of every answer
_TEXT = (
    "the of and to in is it as at by on an for that with from this are was its will may can has each more than over "
    "into near far low high up down out off one two three ten all some most least first last next same other few many "
    "orbit plane star sun moon sky sea ice land rain wind heat light dark shadow night day year time rate range pass "
    "link laser beam route path node data bit token model layer image sensor wave field power watt panel battery cold "
    "warm fast slow long short small large wide deep clear dense thin bright red blue green north south east west "
    "ground space earth ocean river lake forest desert city coast cloud storm fire smoke dust snow field crop ship "
    "road sees finds shows reads sends takes gives keeps holds turns moves rises sets falls grows drops waits ends"
)
WORDS = tuple(_TEXT.split())


def application(servers: Mapping[str, ModelledSatellite]) -> web.Application:
    """The pages of all servers.

    Args:
        servers: by the address at which each is asked.
    """

    def asked(request: web.Request) -> ModelledSatellite:
        return servers[own_address(request)]

    async def health(request: web.Request) -> web.StreamResponse:
        server = asked(request)
        if server.powered and server.spec.words_port is not None:
            return await pass_on(request, server)
        return web.json_response({"status": "ok"}) if server.powered else _no_power()

    async def gauges(request: web.Request) -> web.Response:
        engine = asked(request).engine
        now = {"requests_processing": engine.processing, "requests_deferred": engine.deferred}
        counters = {"prompt_tokens_total": engine.prompt_tokens, "tokens_predicted_total": engine.answer_tokens}
        return web.Response(text=metrics(now, counters))

    async def models(request: web.Request) -> web.StreamResponse:
        server = asked(request)
        if server.spec.words_port is not None:
            return await pass_on(request, server)
        model = {"id": server.spec.label, "object": "model", "created": 0, "owned_by": OWNER}
        return web.json_response({"object": "list", "data": [model]})

    async def chat(request: web.Request) -> web.StreamResponse:
        server = asked(request)
        return await (_complete if server.spec.words_port is None else real_words.answer)(request, server)

    async def context(request: web.Request) -> web.StreamResponse:
        server = asked(request)
        if server.spec.words_port is not None:
            raise web.HTTPNotFound
        return await context_moves.give(request, server) if server.powered else _no_power()

    async def real_only(request: web.Request) -> web.StreamResponse:
        server = asked(request)
        if server.spec.words_port is None:
            raise web.HTTPNotFound
        return await (real_words.answer if request.path == COMPLETION else pass_on)(request, server)

    @web.middleware
    async def followed(request: web.Request, handler: Callable[[web.Request], Any]) -> web.StreamResponse:
        server, task = asked(request), asyncio.current_task()
        assert task is not None, "it is called by one"
        server.handling.add(task)
        try:
            await server.going.wait()
            response: web.StreamResponse = await handler(request)
            return response
        finally:
            server.handling.discard(task)

    app = web.Application(middlewares=[followed])
    app.router.add_get("/health", health)
    app.router.add_get("/metrics", gauges)
    app.router.add_get("/v1/models", models)
    app.router.add_post("/v1/chat/completions", chat)
    app.router.add_post(context_moves.PATH, context)
    for path in (COMPLETION, *PASSED_ON):
        app.router.add_route("*", path, real_only)
    return app


async def _complete(request: web.Request, server: ModelledSatellite) -> web.StreamResponse:
    try:
        question = json.loads(await request.read())
        # as many tokens as it allows, for a modelled answer has no end of its own
        prompt_tokens = count_tokens(question["messages"]) if "messages" in question else 0
        if not prompt_tokens:
            raise ValueError("it has no messages")
        most = question.get("max_tokens") or question.get("max_completion_tokens") or DEFAULT_ANSWER_TOKENS
        left = server.spec.context_tokens - prompt_tokens
        reuses = question.get("cache_prompt") is True
        blocks = block_digests(prompt_pieces(question["messages"])) if reuses and left > 0 else None
        answer_limit, holder = max(1, min(int(most), left)), context_moves.holder_of(question) if blocks else None
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        return _refused(400, "invalid_request_error", f"the request is no chat completion ({error})")
    context_tokens = server.spec.context_tokens
    if prompt_tokens >= context_tokens:
        asked = f"request ({prompt_tokens} tokens) exceeds the available context size ({context_tokens} tokens)"
        return _refused(400, "exceed_context_size_error", f"{asked}, try increasing it")
    if not server.powered:
        return _no_power()
    move = await context_moves.fetch(server, holder, blocks) if holder and blocks else None
    job = Job(prompt_tokens, answer_limit, server.clock.now_ns(), blocks=blocks, move=move)
    answer = {"id": f"modelled-{job.came_ns}", "created": job.came_ns // 10**9, "model": server.spec.label}
    tokens = answer_tokens(f"{question.get('seed')}{question['messages']}")
    queue = server.submit(job)
    try:
        if question.get("stream"):
            return await _stream(request, server, job, answer, queue, tokens)
        texts = []
        for _ in range(job.answer_tokens):
            await queue.get()
            texts.append(next(tokens))
        message = {"role": "assistant", "content": "".join(texts)}
        choices = [{"index": 0, "message": message, "finish_reason": "length"}]
        counts = {"usage": usage(prompt_tokens, job.answered), "timings": server.timings(job)}
        return web.json_response({"choices": choices, **answer, "object": WHOLE, **counts})
    finally:
        server.leave(job)


async def _stream(
    request: web.Request,
    server: ModelledSatellite,
    job: Job,
    answer: Mapping[str, Any],
    queue: asyncio.Queue[None],
    tokens: Iterator[str],
) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
    await response.prepare(request)
    await response.write(chunk(answer, {"role": "assistant", "content": None}))
    for _ in range(job.answer_tokens):
        await queue.get()
        await response.write(chunk(answer, {"content": next(tokens)}))
    counts = usage(job.cached_tokens + job.prompt_tokens, job.answered)
    await response.write(chunk(answer, {}, "length") + last_chunk(answer, counts, server.timings(job)))
    await response.write(b"data: [DONE]\n\n")
    return response


def _no_power() -> web.Response:
    return _refused(503, "unavailable_error", "the satellite has switched its computer off")


def _refused(status: int, kind: str, message: str) -> web.Response:
    return web.json_response(refusal(status, kind, message), status=status)


def count_tokens(messages: Sequence[Mapping[str, Any]]) -> int:
    """How long a chat is, in tokens."""
    texts = [_text(message.get("content") or "") for message in messages]
    return sum(MESSAGE_TOKENS + text_tokens(text) for text in texts)


def prompt_pieces(messages: Sequence[Mapping[str, Any]]) -> list[str]:
    """The tokens of a chat, as many as `count_tokens` says."""
    pieces: list[str] = []
    for message in messages:
        pieces += [str(message.get("role"))] * MESSAGE_TOKENS
        pieces += token_texts(_text(message.get("content") or ""))
    return pieces


def _text(content: Any) -> str:
    """The text of a message, which may be a list of parts, of which images and sounds count nothing."""
    if not isinstance(content, list):
        return str(content)
    return "".join(str(part.get("text") or "") for part in content if isinstance(part, Mapping))


def answer_tokens(seed: str) -> Iterator[str]:
    """The tokens of an answer, without end; the same for the same seed."""
    choose = random.Random(seed)
    yield MARK
    while True:
        yield f" {choose.choice(WORDS)}"


READY = "ready"


def break_off(runner: web.AppRunner, address: str, *, silently: bool) -> None:
    """End the connections at an address as a kernel does for a process that is killed.

    Args:
        silently: as a computer does that loses its power: nothing is said again and again to who cannot hear it.
    """
    assert runner.server is not None, "it is set up"
    for connection in runner.server.connections:
        transport = connection.transport
        if transport is not None and transport.get_extra_info("sockname")[0] == address:
            if silently:
                reset = struct.pack("ii", 1, 0)
                transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
            transport.abort()


async def serve(specs: Sequence[Specification], state: ModelledState, clock: Clock, journal: Path) -> None:
    """Serve until SIGTERM; prints a word when all listen."""
    late_ns, stop = array("q"), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    rows = {name: row for row, name in enumerate(state.names)}
    servers = {spec.address: ModelledSatellite(spec, rows[spec.satellite], state, clock, late_ns) for spec in specs}
    runner = web.AppRunner(application(servers), access_log=None, handle_signals=False)
    await runner.setup()
    places = [ListeningPlace(spec.netns, spec.address, spec.port) for spec in specs]
    sites = dict(zip(servers, [web.SockSite(runner, listening) for listening in listen_at(places)], strict=True))
    for site in sites.values():
        await site.start()
    orders, told = asyncio.Event(), {address: IN_ORDER for address in servers}
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, orders.set)

    async def obey() -> None:
        """Let servers be in the state that they are told to be in."""
        while True:
            await orders.wait()
            orders.clear()
            for spec, place in zip(specs, places, strict=True):
                before, wanted = told[spec.address], int(state.fault[rows[spec.satellite]])
                if wanted != before:
                    told[spec.address], server = wanted, servers[spec.address]
                    if wanted == STOPPED:
                        server.hold()
                    elif wanted in (DEAD, GONE):
                        server.go_on()
                        await sites[spec.address].stop()
                        break_off(runner, spec.address, silently=wanted == GONE)
                        server.crash()
                    else:
                        server.go_on()
                        if before in (DEAD, GONE):
                            (listening,) = listen_at([place])
                            sites[spec.address] = web.SockSite(runner, listening)
                            await sites[spec.address].start()

    print(READY, flush=True)
    obeying = asyncio.create_task(obey())
    await asyncio.wait((asyncio.create_task(stop.wait()), obeying), return_when=asyncio.FIRST_COMPLETED)
    if obeying.done():
        obeying.result()  # what went wrong
    late = np.array(late_ns, dtype=np.int64)
    p50, p99, most = (int(value) for value in np.percentile(late, (50, 99, 100))) if len(late) else (None,) * 3
    with Journal(journal / PACE) as pace:
        pace.append({"steps": len(late), "late_p50_ns": p50, "late_p99_ns": p99, "late_max_ns": most})


def main() -> None:
    """Serve what a run's journal asks for."""
    parser = argparse.ArgumentParser(prog="isl_emu.parts.serving.modelled_server", description=__doc__)
    parser.add_argument("--journal", type=Path, required=True, help="folder of the run's journals")
    journal = parser.parse_args().journal
    state = ModelledState.open(journal / STATE_FILE)
    run_loop(serve(read_specifications(journal), state, run_clock(journal), journal))


if __name__ == "__main__":
    main()
