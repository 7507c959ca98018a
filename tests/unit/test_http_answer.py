"""HTTP answers, cut anywhere."""

from __future__ import annotations

from http.client import HTTPException

import pytest

from isl_emu.parts.questions.http_answer import HttpAnswer

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n7;note=x\r\n, world\r\n0\r\n\r\n"
SIZED = b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nhello"
ENDLESS = b"HTTP/1.0 200\r\n\r\nhello"


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize(
    ("wire", "status", "body", "complete"),
    [(CHUNKED, 200, b"hello, world", True), (SIZED, 404, b"hello", True), (ENDLESS, 200, b"hello", False)],
)
def test_answers_cut_into_pieces(size: int, wire: bytes, status: int, body: bytes, complete: bool) -> None:
    answer, came = HttpAnswer(), b""
    for begin in range(0, len(wire), size):
        came += answer.feed(wire[begin : begin + size])
    assert (answer.status, came, answer.complete) == (status, body, complete)


def test_an_empty_body_is_complete_with_its_head() -> None:
    answer = HttpAnswer()
    answer.feed(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
    assert (answer.status, answer.reason, answer.complete) == (503, "Service Unavailable", True)


@pytest.mark.parametrize("wire", [b"SSH-2.0-OpenSSH\r\n\r\n", b"HTTP/1.1 hello\r\n\r\n", b"x" * 100_000])
def test_what_is_no_http_is_an_error(wire: bytes) -> None:
    with pytest.raises(HTTPException):
        HttpAnswer().feed(wire)


def test_a_broken_chunk_is_an_error() -> None:
    with pytest.raises(ValueError):
        HttpAnswer().feed(CHUNKED.replace(b"5\r\nhello", b"five\r\nhello"))
