"""The client against a server on loopback that misbehaves on command; no namespaces, hardly any waiting."""

from __future__ import annotations

import errno
import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import pytest

from isl_emu.timebase import ManualClock
from isl_emu.workload.client import Client, Endpoint
from isl_emu.workload.exchange import Exchange, body, judge
from isl_emu.workload.requests import PlannedRequest

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
SOON_NS = 50_000_000
LONG_NS = 20_000_000_000  # never reached
QUESTION = PlannedRequest(7, 0, "gs-oslo", "p00s01", "Why?", "Be brief.", 48, 0.0, 99)


def _event(data: dict[str, Any] | str) -> bytes:
    return f"data: {data if isinstance(data, str) else json.dumps(data)}\n\n".encode()


def _token(text: str | None) -> bytes:
    return _event({"choices": [{"index": 0, "delta": {"content": text}}]})


def _chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


LAST = _event(
    {
        "choices": [],
        "usage": {"prompt_tokens": 37, "completion_tokens": 2},
        "timings": {"prompt_ms": 1.5, "predicted_ms": 2.25},
    }
)
WHOLE = _token(None) + _token("It ") + _token("is.") + LAST + _event("[DONE]")


class FakeServer:
    """Answers each connection with the same bytes, piece by piece, then holds the connection, closes or resets it."""

    def __init__(self, pieces: list[bytes], then: str):
        self.pieces, self.then = pieces, then
        self.bodies: list[dict[str, Any]] = []
        self.asked, self.release = threading.Event(), threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        self.bodies.append(_read_request(connection))
        for piece in self.pieces:
            connection.sendall(piece)
        self.asked.set()
        if self.then == "hold":
            self.release.wait(10)
        if self.then == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def stop(self) -> None:
        self.release.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


def _read_request(connection: socket.socket) -> dict[str, Any]:
    with connection.makefile("rb") as file:
        length = 0
        while (line := file.readline()).strip():
            name, _, value = line.partition(b":")
            length = int(value) if name.lower() == b"content-length" else length
        return json.loads(file.read(length))


@contextmanager
def _server(*pieces: bytes, then: str = "close") -> Iterator[FakeServer]:
    server = FakeServer(list(pieces), then)
    try:
        yield server
    finally:
        server.stop()


def _client(port: int, records: list[dict], deadline_ns: int = LONG_NS, **options: Any) -> Client:
    endpoints = {
        "gs-oslo": Endpoint("/run/netns/isl-0a0b0c-gs-oslo", "127.0.0.1", None),
        "p00s01": Endpoint("/run/netns/isl-0a0b0c-p00s01", "127.0.0.1", port),
    }
    options.setdefault("enter", lambda netns: None)
    return Client(endpoints, records.append, time.monotonic_ns(), deadline_ns, **options)


def _ask(port: int, deadline_ns: int = LONG_NS, request: PlannedRequest = QUESTION, **options: Any) -> dict[str, Any]:
    records: list[dict[str, Any]] = []
    client = _client(port, records, deadline_ns, **options)
    client.run([request], client.t0_ns + LONG_NS, threading.Event())
    (record,) = records
    return record


def test_a_whole_answer() -> None:
    with _server(HEAD, _chunk(WHOLE), _chunk(b"")) as server:
        record = _ask(server.port)
    assert (record["outcome"], record["error"], record["answer"]) == ("completed", None, "It is.")
    assert (record["id"], record["station"], record["satellite"]) == (7, "gs-oslo", "p00s01")
    assert (record["prompt_tokens"], record["answer_tokens"]) == (37, 2)
    assert (record["server_prompt_ns"], record["server_predict_ns"]) == (1_500_000, 2_250_000)
    assert record["t_first_ns"] == record["t_send_ns"] + record["ttft_ns"]
    assert record["t_finish_ns"] >= record["t_first_ns"] + sum(record["itl_ns"])
    assert record["e2e_ns"] == record["t_finish_ns"] - record["t_send_ns"]
    assert len(record["itl_ns"]) == 1


@pytest.mark.parametrize("size", [1, 5, 64])
def test_answers_cut_into_small_packets_and_chunks(size: int) -> None:
    chunks = b"".join(_chunk(WHOLE[begin : begin + size]) for begin in range(0, len(WHOLE), size))
    stream = HEAD + chunks + _chunk(b"")
    with _server(*(stream[begin : begin + 3] for begin in range(0, len(stream), 3))) as server:
        record = _ask(server.port)
    assert (record["outcome"], record["answer"], record["answer_tokens"]) == ("completed", "It is.", 2)


def test_the_first_token_is_the_first_with_text() -> None:
    exchange = Exchange(QUESTION, t_send_ns=100)
    for now_ns, text in ((200, None), (300, ""), (400, "It "), (450, "is.")):
        exchange.take({"choices": [{"delta": {"content": text}}]}, now_ns)
    record = exchange.record("completed", None, ManualClock(500), t0_ns=50)
    assert (record["ttft_ns"], record["itl_ns"], record["e2e_ns"]) == (300, [50], 400)
    assert (record["t_send_ns"], record["t_first_ns"], record["t_finish_ns"]) == (50, 350, 450)
    assert (record["answer_tokens"], record["prompt_tokens"], record["server_prompt_ns"]) == (2, None, None)


def test_what_is_asked() -> None:
    with _server(HEAD, _chunk(WHOLE), _chunk(b"")) as server:
        _ask(server.port)
    (asked,) = server.bodies
    assert asked == body(QUESTION)
    assert asked["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
    assert (asked["stream"], asked["seed"], asked["max_tokens"], asked["cache_prompt"]) == (True, 99, 48, False)
    assert body(replace(QUESTION, system=""))["messages"] == [{"role": "user", "content": "Why?"}]


def test_the_thread_enters_the_station_namespace() -> None:
    entered: list[tuple[str, bool]] = []
    main = threading.get_ident()
    with _server(HEAD, _chunk(WHOLE), _chunk(b"")) as server:
        _ask(server.port, enter=lambda netns: entered.append((netns, threading.get_ident() == main)))
    assert entered == [("/run/netns/isl-0a0b0c-gs-oslo", False)]


def test_an_error_status_is_refused_with_the_reason() -> None:
    text = b'{"error":{"code":400,"message":"the request exceeds the context"}}'
    head = f"HTTP/1.1 400 Bad Request\r\nContent-Length: {len(text)}\r\n\r\n".encode()
    with _server(head + text) as server:
        record = _ask(server.port)
    assert record["outcome"] == "refused"
    assert record["error"] == "HTTP status 400: the request exceeds the context"


def test_an_error_within_the_stream_is_refused() -> None:
    with _server(HEAD, _chunk(_token("It ") + _event({"error": {"message": "out of memory"}}))) as server:
        record = _ask(server.port)
    assert (record["outcome"], record["error"], record["answer"]) == ("refused", "out of memory", "It ")


def test_silence_until_the_deadline_is_a_lost_path() -> None:
    with _server(HEAD, then="hold") as server:
        record = _ask(server.port, deadline_ns=SOON_NS)
    assert (record["outcome"], record["t_first_ns"], record["e2e_ns"]) == ("timed_out", None, None)
    assert record["t_finish_ns"] - record["t_send_ns"] >= SOON_NS


def test_a_stall_after_some_tokens_is_a_lost_path_with_what_came(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isl_emu.workload.exchange.STALL_NS", SOON_NS)
    with _server(HEAD, _chunk(_token("It ")), then="hold") as server:
        record = _ask(server.port, deadline_ns=SOON_NS)
    assert (record["outcome"], record["answer"], record["answer_tokens"]) == ("timed_out", "It ", 1)
    assert record["ttft_ns"] is not None


@pytest.mark.parametrize("then", ["reset", "close"])
def test_a_broken_connection_fails(then: str) -> None:
    with _server(HEAD, _chunk(_token("It ")), then=then) as server:
        record = _ask(server.port)
    assert record["outcome"] == "failed"
    assert record["error"]


def test_nobody_listening_fails() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    record = _ask(port)
    assert (record["outcome"], "refused" in record["error"]) == ("failed", True)


def test_nothing_reachable_when_planned_is_unreachable() -> None:
    record = _ask(1, request=replace(QUESTION, satellite=None))
    assert (record["outcome"], record["error"]) == (
        "unreachable",
        "there was no route when it was sent (no computing satellite was reachable)",
    )


@pytest.mark.parametrize(
    ("error", "connected", "outcome"),
    [
        (OSError(errno.ENETUNREACH, "x"), False, "unreachable"),
        (OSError(errno.EHOSTUNREACH, "x"), False, "unreachable"),
        (OSError(errno.EHOSTUNREACH, "x"), True, "path_lost"),
        (OSError(errno.ETIMEDOUT, "x"), True, "timed_out"),
        (OSError(errno.ECONNRESET, "x"), True, "failed"),
        (ValueError("not JSON"), True, "failed"),
    ],
)
def test_outcomes_of_errors(error: Exception, connected: bool, outcome: str) -> None:
    assert judge(error, connected)[0] == outcome


@pytest.mark.parametrize("by", ["time", "signal"])
def test_the_end_of_the_run_leaves_a_record_of_everything(by: str) -> None:
    records: list[dict[str, Any]] = []
    stop = threading.Event()
    later = replace(QUESTION, id=8, t_due_ns=LONG_NS // 2)
    with _server(HEAD, _chunk(_token("It ")), then="hold") as server:
        client = _client(server.port, records)
        until_ns = client.t0_ns + (4 * SOON_NS if by == "time" else LONG_NS)
        waiter = threading.Thread(target=lambda: (server.asked.wait(10), by == "signal" and stop.set()))
        waiter.start()
        client.run([later, QUESTION], until_ns, stop)
        waiter.join()
    open_record, unsent = sorted(records, key=lambda record: record["id"])
    assert (open_record["outcome"], unsent["outcome"]) == ("unfinished", "unfinished")
    assert unsent["t_send_ns"] is None
    assert open_record["t_send_ns"] is not None
    assert (open_record["e2e_ns"], unsent["e2e_ns"]) == (None, None)


def test_the_end_of_the_run_wakes_a_request_that_still_connects() -> None:
    records: list[dict[str, Any]] = []
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, ExitStack() as undo:
        for _ in range(3):  # more than its queue holds: the next connection gets no answer
            filler = undo.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        client = _client(listener.getsockname()[1], records)
        client.run([QUESTION], client.t0_ns + SOON_NS, threading.Event())
    assert [(record["outcome"], record["answer"]) for record in records] == [("unfinished", "")]
    assert records[0]["t_finish_ns"] < LONG_NS


def test_a_request_due_after_the_end_is_never_sent() -> None:
    records: list[dict[str, Any]] = []
    with _server(HEAD, _chunk(WHOLE), _chunk(b"")) as server:
        client = _client(server.port, records)
        client.run([replace(QUESTION, t_due_ns=2 * SOON_NS)], client.t0_ns + SOON_NS, threading.Event())
    assert [record["outcome"] for record in records] == ["unfinished"]
    assert server.bodies == []
