"""Real words at a board's pace: the answer of a real server, told as a board would have given it.

The real server answers as a whole, which takes no time where computing takes none. What it read and what it answered,
token by token, then goes through the board's engine (`modelled_engine`), which says when each token comes.
"""

from __future__ import annotations

import asyncio
import errno
import json
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from typing import Any

from aiohttp import web

from isl_emu.nodes.namespaces import enter_network, in_own_thread
from isl_emu.parts.serving.completions import event, refusal
from isl_emu.parts.serving.modelled_engine import Job, ModelledSatellite
from isl_emu.parts.serving.modelled_specification import Specification

TIMEOUT_S = 600.0  # of the run's clock, in which it takes none: it has stopped answering
OK = 200
DONE = "[DONE]"
UNAVAILABLE, BAD_GATEWAY = 503, 502
PASSED_ON = ("/props", "/slots", "/slots/{number}", "/tokenize", "/detokenize", "/apply-template")


class WordsError(Exception):
    """The real server did not give its words.

    Args:
        status: of the answer that a question gets instead.
    """

    def __init__(self, status: int, reason: str):
        super().__init__(reason)
        self.status = status


BROKEN_OFF = "the real server broke off its answer"


@dataclass(frozen=True)
class Reply:
    """What a server said to one request."""

    status: int
    kind: str
    body: bytes


@dataclass(frozen=True)
class StreamEvent:
    """An event of a streamed answer, and the number of the token with which it comes, from 1."""

    token: int
    body: dict[str, Any]


def reply_of(spec: Specification, method: str, path: str, body: bytes) -> Reply:
    """Ask the real server of a satellite, in the satellite's network, and wait for its whole reply.

    Raises:
        WordsError: nobody listens there, or the reply breaks off.
    """
    return in_own_thread(_ask, spec, method, path, body)


def _ask(spec: Specification, method: str, path: str, body: bytes) -> Reply:
    """In a thread of its own."""
    assert spec.words_port is not None, "its words are real"
    if spec.netns:
        enter_network(spec.netns)
    connection = HTTPConnection(spec.address, spec.words_port, timeout=TIMEOUT_S)
    try:
        connection.request(method, path, body or None, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return Reply(response.status, response.headers.get_content_type(), response.read())
    except (OSError, HTTPException) as error:
        nobody = isinstance(error, OSError) and error.errno == errno.ECONNREFUSED
        reason = "nobody listens there" if nobody else str(error) or type(error).__name__
        status = UNAVAILABLE if nobody else BAD_GATEWAY
        raise WordsError(status, f"the real server of {spec.satellite} did not answer: {reason}") from error
    finally:
        connection.close()


def stream_events(body: bytes) -> list[StreamEvent]:
    """The events of a streamed answer that has come as a whole, each with its token; the mark at its end left out.

    Raises:
        WordsError: it is an error, or not complete.
    """
    found: list[StreamEvent] = []
    data = [line.removeprefix(b"data: ") for line in body.splitlines() if line.startswith(b"data: ")]
    for line in data:
        if line == DONE.encode():
            return found
        content = _body_of(line)
        if "error" in content:
            raise WordsError(BAD_GATEWAY, f"the real server ended its answer: {content['error']}")
        said = content.get("timings", {}).get("predicted_n")  # without it, the token is that of the event before
        found.append(StreamEvent(max(1, said or (found[-1].token if found else 1)), content))
    raise WordsError(BAD_GATEWAY, BROKEN_OFF)


def _body_of(data: bytes) -> dict[str, Any]:
    """One body, as JSON has it."""
    try:
        content: dict[str, Any] = json.loads(data)
    except ValueError:
        raise WordsError(BAD_GATEWAY, BROKEN_OFF) from None
    return content


def job_of(last: Mapping[str, Any], came_ns: int) -> Job:
    """What a board has to do for an answer, by the body that counts it.

    Raises:
        WordsError: it has no counts.
    """
    try:
        counts = last["timings"]
        read, answered, cached = (int(counts[key]) for key in ("prompt_n", "predicted_n", "cache_n"))
    except (KeyError, TypeError, ValueError):
        raise WordsError(BAD_GATEWAY, "the real server does not count its tokens") from None
    return Job(read, max(1, answered), came_ns, cached_tokens=cached)


async def answer(request: web.Request, server: ModelledSatellite) -> web.StreamResponse:
    """The real server's answer to a chat or a completion, at the board's pace."""
    if not server.powered:
        return refused(UNAVAILABLE, "the satellite has switched its computer off")
    body = await request.read()
    try:
        question = json.loads(body)
        streams = bool(question.get("stream"))
        body = json.dumps({**question, "timings_per_token": True}).encode() if streams else body
    except (ValueError, AttributeError):
        streams = False  # what is wrong with it, the real server says
    try:
        reply = await asyncio.to_thread(reply_of, server.spec, "POST", request.path, body)
        if reply.status != OK:
            return _passed_on(reply)
        if streams:
            return await _stream(request, server, stream_events(reply.body))
        content = _body_of(reply.body)
        job = job_of(content, server.clock.now_ns())
        queue = server.submit(job)
        try:
            for _ in range(job.answer_tokens):
                await queue.get()
            return web.json_response({**content, "timings": _timings(server, job)})
        finally:
            server.leave(job)
    except WordsError as error:
        return refused(error.status, str(error))


async def pass_on(request: web.Request, server: ModelledSatellite) -> web.StreamResponse:
    """What the real server says to a request that takes no computing."""
    try:
        body = await request.read()
        return _passed_on(await asyncio.to_thread(reply_of, server.spec, request.method, request.path_qs, body))
    except WordsError as error:
        return refused(error.status, str(error))


async def _stream(request: web.Request, server: ModelledSatellite, events: list[StreamEvent]) -> web.StreamResponse:
    counting = next((found for found in reversed(events) if "timings" in found.body), None)
    job = job_of(counting.body if counting else {}, server.clock.now_ns())
    queue = server.submit(job)
    try:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
        await response.prepare(request)
        for token in range(1, job.answer_tokens + 1):
            await queue.get()
            data = b""  # the events that come with it; the one that counts has the board's times, others have none
            for found in events:
                if min(found.token, job.answer_tokens) == token:
                    own = {key: value for key, value in found.body.items() if key != "timings"}
                    data += event({**own, "timings": _timings(server, job)} if found is counting else own)
            if data:
                await response.write(data)
        await response.write(f"data: {DONE}\n\n".encode())
        return response
    finally:
        server.leave(job)


def _timings(server: ModelledSatellite, job: Job) -> dict[str, float]:
    return {**server.timings(job), "cache_n": job.cached_tokens}


def _passed_on(reply: Reply) -> web.Response:
    return web.Response(status=reply.status, body=reply.body, content_type=reply.kind)


def refused(status: int, message: str) -> web.Response:
    """The answer to a question that has none."""
    kind = "unavailable_error" if status == UNAVAILABLE else "server_error"
    return web.json_response(refusal(status, kind, message), status=status)
