"""HTTP answers, cut anywhere."""

from __future__ import annotations

from http.client import HTTPException

import pytest

from isl_emu.parts.questions.connection import HttpAnswer, get, post
from isl_emu.runs.endpoints import Endpoint

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n7;note=x\r\n, world\r\n0\r\n\r\n"
SIZED = b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nhello"
ENDLESS = b"HTTP/1.0 200\r\n\r\nhello"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\nServer: slow\r\n\r\n"
SERVER = Endpoint("", "10.0.0.1", 8080)


def _answer() -> HttpAnswer:
    return HttpAnswer(get("/metrics", SERVER))


def test_requests_are_as_short_as_can_be() -> None:
    """Their length counts: it is on lasers."""
    asked = b"GET /metrics HTTP/1.1\r\nHost: 10.0.0.1:8080\r\nConnection: close\r\n\r\n"
    assert _answer().wire == asked
    head = b"POST /v1 HTTP/1.1\r\nHost: 10.0.0.1:8080\r\nContent-Type: application/json\r\nContent-Length: 8\r\n\r\n"
    assert HttpAnswer(post("/v1", SERVER, {"a": 1})).wire == head + b'{"a": 1}'


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize(
    ("wire", "status", "body", "complete"),
    [
        (CHUNKED, 200, b"hello, world", True),
        (SIZED, 404, b"hello", True),
        (ENDLESS, 200, b"hello", False),
        (CONTINUE + CHUNKED, 200, b"hello, world", True),
    ],
)
def test_answers_cut_into_pieces(size: int, wire: bytes, status: int, body: bytes, complete: bool) -> None:
    answer, came = _answer(), b""
    for begin in range(0, len(wire), size):
        came += answer.feed(wire[begin : begin + size])
    assert (answer.status, came, answer.complete) == (status, body, complete)


def test_an_empty_body_is_complete_with_its_head() -> None:
    answer = _answer()
    answer.feed(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
    assert (answer.status, answer.reason, answer.complete) == (503, "Service Unavailable", True)


def test_a_body_without_a_length_is_complete_with_its_connection() -> None:
    answer = _answer()
    assert answer.feed(ENDLESS) == b"hello"
    answer.feed(b"")
    assert answer.complete


@pytest.mark.parametrize(
    "wire",
    [b"SSH-2.0-OpenSSH\r\n\r\n", b"HTTP/1.1 hello\r\n\r\n", b"x" * 100_000]
    + [CHUNKED.replace(b"5\r\nhello", size + b"\r\nhello") for size in (b"five", b"-5", b"0x5", b"+5", b"")],
)
def test_what_is_no_http_is_an_error(wire: bytes) -> None:
    with pytest.raises(HTTPException, match=r"the answer is no HTTP/1\.1: "):
        _answer().feed(wire)


@pytest.mark.parametrize("wire", [b"", CHUNKED[:20], CHUNKED[:-3], SIZED[:-1]])
def test_an_answer_that_is_cut_off_is_an_error(wire: bytes) -> None:
    answer = _answer()
    if wire:
        answer.feed(wire)
    with pytest.raises(HTTPException, match="the connection ended before the answer did"):
        answer.feed(b"")
