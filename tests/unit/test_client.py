"""The client against a server on loopback that misbehaves on command; no namespaces, hardly any waiting."""

from __future__ import annotations

import asyncio
import errno
import json
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from isl_emu.errors import WorkloadError
from isl_emu.parts.questions.asking import Asking
from isl_emu.parts.questions.chooser import Chooser, Polls
from isl_emu.parts.questions.client import AnswerListener, Client
from isl_emu.parts.questions.connection import FIRST_PORT, Connector, HttpAnswer, post
from isl_emu.parts.questions.exchange import Attempt, OpenRequest, RefusedError, UnavailableError, body, judge
from isl_emu.parts.questions.requests import PlannedRequest
from isl_emu.parts.questions.results import REQUESTS
from isl_emu.parts.serving.who_serves import ServingSatellites
from isl_emu.runs.endpoints import Endpoint
from isl_emu.runs.journal import Journal, read_journal
from isl_emu.timebase import ManualClock, MonotonicClock

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
        with suppress(ConnectionError):  # a client may have heard enough
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
        return json.loads(file.read(length) or b"{}")


@contextmanager
def _server(*pieces: bytes, then: str = "close") -> Iterator[FakeServer]:
    server = FakeServer(list(pieces), then)
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def serving(tmp_path: Path) -> ServingSatellites:
    """Both satellites serve from the start."""
    path = tmp_path / "serving.jsonl"
    path.write_text('{"satellite": "p00s01", "t_ns": -1}\n{"satellite": "p00s02", "t_ns": -1}\n')
    return ServingSatellites(path)


class Asker:
    """Asks servers on loopback, and keeps what the client writes down."""

    def __init__(self, serving: ServingSatellites):
        self.serving, self.records, self.attempts = serving, [], []

    def client(self, *ports: int, enter: Any = lambda netns: None, **settings: Any) -> Client:
        """A client for satellites p00s01 and up, on these ports."""
        stations = {"gs-oslo": Endpoint("/run/netns/isl-0a0b0c-gs-oslo", "127.0.0.1", None)}
        names = [f"p00s{number:02}" for number, _ in enumerate(ports, 1)]
        satellites = {name: Endpoint(name, "127.0.0.1", port) for name, port in zip(names, ports, strict=True)}
        asking = Asking(**{"deadline_ns": LONG_NS, "satellites": ("p00s01", "p00s02"), **settings})
        clock = MonotonicClock()
        return Client(
            endpoints={**stations, **satellites},
            chooser=Chooser(asking, self.serving),
            asking=asking,
            write=self.records.append,
            write_attempt=self.attempts.append,
            t0_ns=time.monotonic_ns(),
            connector=Connector(clock, enter),
        )

    def run(self, client: Client, *requests: PlannedRequest, for_ns: int = LONG_NS, stop: Any = None) -> list[dict]:
        """Let a client ask; the records by number."""

        async def run() -> None:
            stopped = asyncio.Event()
            if stop:
                asyncio.get_running_loop().run_in_executor(None, stop).add_done_callback(lambda _: stopped.set())
            await client.run(requests, client.t0_ns + for_ns, stopped)

        asyncio.run(run())
        return sorted(self.records, key=lambda record: record["id"])

    def __call__(self, *ports: int, request: PlannedRequest = QUESTION, **settings: Any) -> dict[str, Any]:
        """The record of one question."""
        (record,) = self.run(self.client(*ports, **settings), request)
        return record


@pytest.fixture
def ask(serving: ServingSatellites) -> Asker:
    return Asker(serving)


def test_a_whole_answer(ask: Asker) -> None:
    with _server(HEAD, _chunk(WHOLE), _chunk(b"")) as server:
        record = ask(server.port)
    assert (record["outcome"], record["error"], record["answer"]) == ("completed", None, "It is.")
    assert (record["id"], record["station"], record["satellite"]) == (7, "gs-oslo", "p00s01")
    assert (record["prompt_tokens"], record["answer_tokens"]) == (37, 2)
    assert (record["server_prompt_ns"], record["server_predict_ns"]) == (1_500_000, 2_250_000)
    assert record["t_first_ns"] == record["t_send_ns"] + record["ttft_ns"]
    assert record["t_finish_ns"] >= record["t_first_ns"] + sum(record["itl_ns"])
    assert record["e2e_ns"] == record["t_finish_ns"] - record["t_send_ns"]
    assert len(record["itl_ns"]) == 1


@pytest.mark.parametrize("size", [1, 5, 64])
def test_answers_cut_into_small_packets_and_chunks(ask: Asker, size: int) -> None:
    chunks = b"".join(_chunk(WHOLE[begin : begin + size]) for begin in range(0, len(WHOLE), size))
    stream = HEAD + chunks + _chunk(b"")
    with _server(*(stream[begin : begin + 3] for begin in range(0, len(stream), 3))) as server:
        record = ask(server.port)
    assert (record["outcome"], record["answer"], record["answer_tokens"]) == ("completed", "It is.", 2)


def test_the_first_token_is_the_first_with_text() -> None:
    attempt = Attempt("p00s01", t_send_ns=100)
    for now_ns, text in ((200, None), (300, ""), (400, "It "), (450, "is.")):
        attempt.take(json.dumps({"choices": [{"delta": {"content": text}}]}), now_ns)
    record = OpenRequest(QUESTION, 90, [attempt]).record("completed", None, ManualClock(500), t0_ns=50)
    assert (record["ttft_ns"], record["itl_ns"], record["e2e_ns"]) == (300, [50], 400)
    assert (record["t_due_ns"], record["t_send_ns"], record["t_first_ns"], record["t_finish_ns"]) == (40, 50, 350, 450)
    assert (record["answer_tokens"], record["prompt_tokens"], record["server_prompt_ns"]) == (2, None, None)


def test_what_is_asked(ask: Asker) -> None:
    with _server(HEAD, _chunk(WHOLE), _chunk(b"")) as server:
        ask(server.port)
    (asked,) = server.bodies
    assert asked == body(QUESTION)
    assert asked["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
    assert (asked["stream"], asked["seed"], asked["max_tokens"], asked["cache_prompt"]) == (True, 99, 48, False)
    assert body(replace(QUESTION, system=""))["messages"] == [{"role": "user", "content": "Why?"}]


def test_the_socket_is_made_in_the_station_namespace(ask: Asker) -> None:
    entered: list[str] = []
    with _server(HEAD, _chunk(WHOLE), _chunk(b"")) as server:
        ask.run(ask.client(server.port, enter=entered.append), QUESTION)
    assert entered == ["/run/netns/isl-0a0b0c-gs-oslo"]


@pytest.mark.parametrize(
    ("status", "reason", "outcome"),
    [("400 Bad Request", "the request exceeds the context", "refused"), ("503 Off", "it is off", "unavailable")],
)
def test_an_error_status_is_an_outcome_with_the_reason(ask: Asker, status: str, reason: str, outcome: str) -> None:
    text = f'{{"error":{{"code":1,"message":"{reason}"}}}}'
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(text)}\r\n\r\n"
    with _server((head + text).encode()) as server:
        record = ask(server.port)
    assert record["outcome"] == outcome
    assert record["error"] == f"HTTP status {status[:3]}: {reason}"


def test_an_error_within_the_stream_is_refused(ask: Asker) -> None:
    with _server(HEAD, _chunk(_token("It ") + _event({"error": {"message": "out of memory"}}))) as server:
        record = ask(server.port)
    assert (record["outcome"], record["error"], record["answer"]) == ("refused", "out of memory", "It ")


END = _event("[DONE]")


def _choice(delta: Any, **more: Any) -> bytes:
    return _event({"choices": [{"index": 0, "delta": delta, **more}]})


PARTS = [{"type": "text", "text": "It "}, {"type": "text", "text": "is."}, {"type": "image_url"}, None, 3]


@pytest.mark.parametrize(
    ("stream", "answer", "tokens"),
    [
        (_choice({"content": PARTS}) + END, "It is.", 1),
        (_choice(None) + _token("Yes") + END, "Yes", 1),
        (_event({"choices": None}) + _event({}) + _token("Yes") + END, "Yes", 1),
        (_token("Yes") + _event({"choices": [None, 7, "x"], "usage": None, "timings": []}) + END, "Yes", 1),
        (_token("Yes") + _event({"usage": {"completion_tokens": None, "prompt_tokens": "9"}}) + END, "Yes", 1),
        (_token("Yes") + _event({"usage": {"completion_tokens": 1e300}, "timings": {"prompt_ms": -1}}) + END,
         "Yes", 1),
        (_token("Yes") + b'data: {"timings": {"prompt_ms": NaN, "predicted_ms": Infinity}}\n\n' + END,
         "Yes", 1),
        (_event({"error": None, **json.loads(_token("Yes")[6:])}) + END, "Yes", 1),
        (_choice({"content": "Yes"}, finish_reason="stop"), "Yes", 1),
        (_token("Yes") + _choice({}, finish_reason="length"), "Yes", 1),
        (_choice({"content": "Yes"}, finish_reason="stop").rstrip(), "Yes", 1),
        (_choice({"reasoning_content": "hm"}) + _choice({"reasoning": "hm"}) + _token("Yes") + END, "Yes", 3),
        (_choice({"tool_calls": [{"index": 0}]}) + END, "", 1),
        (_event({"choices": [{"text": "Yes", "index": 0}]}) + END, "Yes", 1),
        (_token("\ud83d") + _token("\ude80\ud800") + END, "\N{ROCKET}\ufffd", 2),
        (b"\xef\xbb\xbf" + _token("Yes") + b": ping\n\n" + b"data: [DONE] \n\n", "Yes", 1),
        (_token("Yes") + _event({"usage": {"completion_tokens": 9}}) + END, "Yes", 9),
    ],
)  # fmt: skip
def test_whatever_a_server_streams_is_one_outcome(ask: Asker, tmp_path: Path, stream: bytes, answer: str,
                                                  tokens: int) -> None:  # fmt: skip
    with _server(HEAD, _chunk(stream), _chunk(b"")) as server:
        record = ask(server.port)
    assert (record["outcome"], record["answer"], record["answer_tokens"]) == ("completed", answer, tokens)
    assert record["t_first_ns"] is not None
    with Journal(tmp_path / "requests.jsonl") as journal:
        journal.append(record)
    (row,) = read_journal(tmp_path / "requests.jsonl").records
    assert pa.Table.from_pylist([row], REQUESTS).num_rows == 1


@pytest.mark.parametrize(
    ("stream", "outcome", "error"),
    [
        (b'error: {"code":500,"message":"out of memory"}\n\n', "refused", "out of memory"),
        (b"error: cannot load\n\n", "refused", "cannot load"),
        (b"event: error\ndata: cannot load\n\n", "refused", "cannot load"),
        (_event({"object": "error", "message": "cannot load", "code": 400}), "refused", "cannot load"),
        (_event({"error": {"code": 503, "message": "loading"}}), "unavailable", "loading"),
        (_event({"error": {"code": "rate_limit", "message": None}}), "refused", "rate_limit"),
        (_event("42"), "failed", "42"),
        (_event("{broken"), "failed", "{broken"),
        (_event("[" * 100_000), "failed", "[[["),
        (b"data: \xff\xfe\n\n", "failed", "no JSON object"),
        (_token("It ") + b"x" * (1 << 23), "failed", "longer than"),
        (b"<html>", "failed", "without saying"),
    ],
)  # fmt: skip
def test_what_is_no_answer_says_why(ask: Asker, stream: bytes, outcome: str, error: str) -> None:
    with _server(HEAD, _chunk(stream), _chunk(b"")) as server:
        record = ask(server.port)
    assert (record["outcome"], error in record["error"]) == (outcome, True), record["error"]


@pytest.mark.parametrize("status", ["429 Too Many Requests", "502 Bad Gateway", "529 Overloaded"])
def test_too_many_requests_are_asked_again_like_503(ask: Asker, status: str) -> None:
    text = b"slow down"
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(text)}\r\n\r\n".encode()
    with _server(head + text) as busy, _server(HEAD, _chunk(WHOLE), _chunk(b"")) as server:
        record = ask(busy.port, server.port, retries=1)
    assert (record["outcome"], record["attempts"]) == ("completed", 2)
    assert [attempt["error"] for attempt in ask.attempts] == [f"HTTP status {status[:3]}: slow down", None]


@pytest.mark.parametrize("then", ["hold", "close", "reset"])
def test_a_finished_answer_is_complete_however_its_connection_ends(
    ask: Asker, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    for module in ("exchange", "connection"):
        monkeypatch.setattr(f"isl_emu.parts.questions.{module}.STALL_NS", 4 * SOON_NS)
    with _server(HEAD, _chunk(_choice({"content": "Yes"}, finish_reason="stop")), then=then) as server:
        record = ask(server.port)
    assert (record["outcome"], record["answer"]) == ("completed", "Yes")
    assert record["t_finish_ns"] == record["t_first_ns"]  # the wait for a mark that never comes is not the answer's


def test_signs_of_life_are_whatever_comes() -> None:
    attempt, asking = Attempt("p00s01", t_send_ns=100), Asking(deadline_ns=10, attempt_timeout_ns=1_000)
    listener = AnswerListener(attempt, asking)
    assert attempt.patient_until_ns(asking) == 1_100
    for now_ns, part in ((500, b": keep-alive\n\n"), (900, _choice({"role": "assistant"})), (1_500, b": ")):
        listener.take(part, now_ns)
        assert attempt.patient_until_ns(asking) == now_ns + 1_000
    assert attempt.t_token_ns == []


def test_silence_until_the_deadline_is_a_lost_path(ask: Asker) -> None:
    with _server(HEAD, then="hold") as server:
        record = ask(server.port, deadline_ns=SOON_NS)
    assert (record["outcome"], record["t_first_ns"], record["e2e_ns"]) == ("timed_out", None, None)
    assert record["t_finish_ns"] - record["t_send_ns"] >= SOON_NS


def test_a_stall_after_some_tokens_is_a_lost_path_with_what_came(ask: Asker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isl_emu.parts.questions.exchange.STALL_NS", SOON_NS)
    with _server(HEAD, _chunk(_token("It ")), then="hold") as server:
        record = ask(server.port, deadline_ns=SOON_NS)
    assert (record["outcome"], record["answer"], record["answer_tokens"]) == ("timed_out", "It ", 1)
    assert record["ttft_ns"] is not None


@pytest.mark.parametrize("then", ["reset", "close"])
def test_a_broken_connection_fails(ask: Asker, then: str) -> None:
    with _server(HEAD, _chunk(_token("It ")), then=then) as server:
        record = ask(server.port)
    assert record["outcome"] == "failed"
    assert record["error"]


def test_with_nobody_listening_it_is_unavailable(ask: Asker) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    record = ask(port)
    assert (record["outcome"], "nobody listened" in record["error"]) == ("unavailable", True)


def test_with_nobody_who_serves_it_is_unreachable(ask: Asker, tmp_path: Path) -> None:
    (tmp_path / "serving.jsonl").unlink()
    record = ask(1)
    assert (record["outcome"], record["error"], record["satellite"]) == (
        "unreachable",
        "there was no route when it was sent (no satellite that serves was reachable)",
        None,
    )


@pytest.mark.parametrize(
    ("error", "connected", "outcome"),
    [
        (OSError(errno.ENETUNREACH, "x"), False, "unreachable"),
        (OSError(errno.EHOSTUNREACH, "x"), False, "unreachable"),
        (OSError(errno.EHOSTUNREACH, "x"), True, "path_lost"),
        (OSError(errno.ECONNREFUSED, "x"), False, "unavailable"),
        (UnavailableError("x"), True, "unavailable"),
        (RefusedError("x"), True, "refused"),
        (OSError(errno.ETIMEDOUT, "x"), True, "timed_out"),
        (OSError(errno.ECONNRESET, "x"), True, "failed"),
        (ValueError("not JSON"), True, "failed"),
    ],
)
def test_outcomes_of_errors(error: Exception, connected: bool, outcome: str) -> None:
    assert judge(error, connected)[0] == outcome


@pytest.mark.parametrize("by", ["time", "signal"])
def test_the_end_of_the_run_leaves_a_record_of_everything(ask: Asker, by: str) -> None:
    later = replace(QUESTION, id=8, t_due_ns=LONG_NS // 2)
    with _server(HEAD, _chunk(_token("It ")), then="hold") as server:
        stop = (lambda: server.asked.wait(10)) if by == "signal" else None
        for_ns = 4 * SOON_NS if by == "time" else LONG_NS
        open_record, unsent = ask.run(ask.client(server.port), later, QUESTION, for_ns=for_ns, stop=stop)
    assert (open_record["outcome"], unsent["outcome"]) == ("unfinished", "unfinished")
    assert unsent["t_send_ns"] is None
    assert open_record["t_send_ns"] is not None
    assert (open_record["e2e_ns"], unsent["e2e_ns"]) == (None, None)
    assert [(attempt["id"], attempt["outcome"]) for attempt in ask.attempts] == [(7, "unfinished")]


def test_the_end_of_the_run_is_written_down_in_the_order_of_asking(ask: Asker) -> None:
    """Not in one that follows from where memory was free: two runs in exact time are the same."""
    many = [replace(QUESTION, id=number) for number in range(40)]
    with socket.create_server(("127.0.0.1", 0), backlog=len(many)) as listener:
        ask.run(ask.client(listener.getsockname()[1]), *many, for_ns=10 * SOON_NS)
    assert [attempt["id"] for attempt in ask.attempts] == list(range(40))


def test_the_end_of_the_run_wakes_a_request_that_still_connects(ask: Asker) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, ExitStack() as undo:
        for _ in range(3):  # more than its queue holds: the next connection gets no answer
            filler = undo.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        (record,) = ask.run(ask.client(listener.getsockname()[1]), QUESTION, for_ns=SOON_NS)
    assert (record["outcome"], record["answer"]) == ("unfinished", "")
    assert record["t_finish_ns"] < LONG_NS


def test_a_request_due_after_the_end_is_never_sent(ask: Asker) -> None:
    with _server(HEAD, _chunk(WHOLE), _chunk(b"")) as server:
        (record,) = ask.run(ask.client(server.port), replace(QUESTION, t_due_ns=2 * SOON_NS), for_ns=SOON_NS)
    assert record["outcome"] == "unfinished"
    assert server.bodies == []


def test_a_request_that_waits_for_another_is_sent_when_that_has_ended(ask: Asker) -> None:
    with _server(HEAD, _chunk(WHOLE), _chunk(b"")) as server:
        first, second, third = ask.run(
            ask.client(server.port), QUESTION, *(replace(QUESTION, id=n, after=n - 1) for n in (8, 9))
        )
    assert first["t_finish_ns"] <= second["t_due_ns"] <= second["t_send_ns"]
    assert second["t_finish_ns"] <= third["t_send_ns"]
    assert len(server.bodies) == 3


def test_a_conversations_turn_is_asked_with_all_that_was_said(ask: Asker) -> None:
    talk = {"conversation": 0, "turn": 0}
    first, second = (
        replace(QUESTION, **talk),
        replace(QUESTION, **talk, id=8, after=7, before=(("assistant", "So."),)),
    )
    other = replace(QUESTION, id=9, after=8, conversation=1, turn=0, question="Who?", think_ns=5)
    with _server(HEAD, _chunk(WHOLE), _chunk(b"")) as server:
        records = ask.run(ask.client(server.port), first, replace(second, turn=1, question="How?"), other)
    system, why = {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}
    reply, how = {"role": "assistant", "content": "So."}, {"role": "user", "content": "How?"}
    assert [each["messages"] for each in server.bodies] == [
        [system, why],
        [system, why, reply, how],
        [system, {"role": "user", "content": "Who?"}],
    ]
    assert [(each["conversation"], each["turn"], each["think_ns"]) for each in records] == [
        (0, 0, None),
        (0, 1, 0),
        (1, 0, 5),
    ]


@pytest.mark.parametrize("context", ["move", "recompute"])
def test_a_turn_at_another_satellite_says_where_the_one_before_was_read(ask: Asker, context: str) -> None:
    first = replace(QUESTION, conversation=0, turn=0)
    second = replace(first, id=8, after=7, turn=1, satellite="p00s02")
    third = replace(second, id=9, after=8, turn=2)
    other = replace(first, id=10, after=9, conversation=1)
    moved = _event({"choices": [], "timings": {"moved_n": 32, "moved_byte": 2**40, "moved_ms": 1.5}})
    last = {"usage": {"prompt_tokens": 37, "completion_tokens": 2}}
    answer = _chunk(_token("It is.") + _event({"choices": [], **last}) + moved + _event("[DONE]"))
    with _server(HEAD, _chunk(WHOLE), _chunk(b"")) as here, _server(HEAD, answer, _chunk(b"")) as there:
        client = ask.client(here.port, there.port, context=context)
        records = ask.run(client, first, second, third, other)
    told = [each.get("kv_transfer_params") for each in (*here.bodies, *there.bodies)]
    there_first = {"do_remote_prefill": True, "remote_host": "127.0.0.1", "remote_port": here.port}
    assert told == [None, None, there_first if context == "move" else None, None]
    assert [record["context_from"] for record in records] == [None, "p00s01", None, None]
    assert [(records[1][key]) for key in ("moved_tokens", "moved_byte", "move_ns")] == [32, 2**40, 1_500_000]


def test_one_that_waits_is_not_due_after_the_last_moment(ask: Asker) -> None:
    with _server(HEAD, _chunk(WHOLE), _chunk(b"")) as server:
        records = ask.run(ask.client(server.port, stop_after_ns=1), QUESTION, replace(QUESTION, id=8, after=7))
    assert [record["id"] for record in records] == [7]


def test_a_user_thinks_after_an_answer(ask: Asker) -> None:
    requests = [replace(QUESTION, user=3, turn=0), replace(QUESTION, id=8, after=7, user=3, turn=1, think_ns=SOON_NS)]
    with _server(HEAD, _chunk(WHOLE), _chunk(b"")) as server:
        first, second = ask.run(ask.client(server.port), *requests)
    assert (first["user"], first["turn"], first["think_ns"]) == (3, 0, None)
    assert (second["turn"], second["think_ns"], second["outcome"]) == (1, SOON_NS, "completed")
    assert second["t_send_ns"] >= second["t_due_ns"] >= first["t_finish_ns"] + SOON_NS


def test_a_user_who_thinks_at_the_end_of_the_run_leaves_no_question(ask: Asker) -> None:
    requests = [QUESTION, replace(QUESTION, id=8, after=7, think_ns=LONG_NS)]
    with _server(HEAD, _chunk(WHOLE), _chunk(b"")) as server:
        (only,) = ask.run(ask.client(server.port), *requests, for_ns=10 * SOON_NS)
    assert only["id"] == 7


def test_a_user_whom_the_ramp_leaves_out_asks_no_more(ask: Asker) -> None:
    requests = [replace(QUESTION, level=0.5), replace(QUESTION, id=8, after=7, level=0.5)]
    with _server(HEAD, _chunk(WHOLE), _chunk(b"")) as server:
        (only,) = ask.run(ask.client(server.port, ramp=[(0, 1.0), (1, 0.0)]), *requests)
    assert only["id"] == 7


def test_the_bytes_of_a_connection_are_those_of_its_packets(ask: Asker) -> None:
    with _server(HEAD, _chunk(WHOLE), _chunk(b"")) as server:
        record = ask(server.port)
    asked = post("/v1/chat/completions", Endpoint("", "127.0.0.1", server.port), body(QUESTION))
    asked_byte = len(HttpAnswer(asked).wire)
    answered_byte = len(HEAD) + len(_chunk(WHOLE))
    assert asked_byte + 3 * 40 <= record["sent_byte"] <= asked_byte + 12 * 60  # the handshake, the data, some ACKs
    assert answered_byte + 2 * 40 <= record["received_byte"] <= answered_byte + 12 * 60


def test_connections_of_a_node_have_one_free_port_after_another() -> None:
    """Whatever other nodes do; the second is taken."""
    connector, address = Connector(MonotonicClock(), lambda netns: None), "127.0.3.4"
    with ExitStack() as undo:
        mine = [undo.enter_context(socket.socket()) for _ in range(4)]
        mine[0].bind((address, FIRST_PORT + 1))
        for one in mine[1:]:
            connector.bind(undo.enter_context(socket.socket()), "127.0.3.5")
            connector.bind(one, address)
        assert [one.getsockname()[1] - FIRST_PORT for one in mine] == [1, 0, 2, 3]


def test_a_lost_answer_is_asked_for_again_elsewhere(ask: Asker) -> None:
    with _server(HEAD, _chunk(_token("It ")), then="reset") as bad, _server(HEAD, _chunk(WHOLE)) as good:
        record = ask(bad.port, good.port, retries=2)
    assert (record["outcome"], record["answer"], record["satellite"], record["attempts"]) == (
        "completed", "It is.", "p00s02", 2,
    )  # fmt: skip
    assert [(row["attempt"], row["satellite"], row["outcome"]) for row in ask.attempts] == [
        (1, "p00s01", "failed"), (2, "p00s02", "completed"),
    ]  # fmt: skip
    assert record["t_send_ns"] == ask.attempts[0]["t_send_ns"]
    assert record["t_last_send_ns"] == ask.attempts[1]["t_send_ns"]
    assert record["ttft_ns"] > ask.attempts[0]["t_finish_ns"] - ask.attempts[0]["t_send_ns"]
    assert record["sent_byte"] == sum(row["sent_byte"] for row in ask.attempts)


def test_it_is_asked_again_at_the_same_satellite_after_a_growing_pause(ask: Asker) -> None:
    with _server(HEAD, then="close") as server:
        record = ask(server.port, 1, retries=2, retry_at="same", retry_backoff_ns=SOON_NS)
    assert (record["outcome"], record["attempts"]) == ("failed", 3)
    first, second, third = ask.attempts
    assert {row["satellite"] for row in ask.attempts} == {"p00s01"}
    assert second["t_send_ns"] - first["t_finish_ns"] >= SOON_NS
    assert third["t_send_ns"] - second["t_finish_ns"] >= 2 * SOON_NS


def test_a_silent_attempt_is_given_up_after_its_own_time_out(ask: Asker) -> None:
    with _server(HEAD, then="hold") as silent, _server(HEAD, _chunk(WHOLE)) as good:
        record = ask(silent.port, good.port, retries=1, attempt_timeout_ns=SOON_NS)
    assert (record["outcome"], record["attempts"]) == ("completed", 2)
    assert ask.attempts[0]["outcome"] == "timed_out"


@pytest.mark.parametrize(("deadline_ns", "attempts"), [(SOON_NS, 1), (LONG_NS, 2)])
def test_after_the_deadline_there_is_no_other_attempt(ask: Asker, deadline_ns: int, attempts: int) -> None:
    with _server(HEAD, then="close") as server:
        record = ask(server.port, retries=1, retry_backoff_ns=2 * SOON_NS, deadline_ns=deadline_ns)
    assert record["attempts"] == attempts


def test_what_a_server_refuses_is_not_asked_again(ask: Asker) -> None:
    with _server(HEAD, _chunk(_event({"error": {"message": "too long"}}))) as server:
        assert ask(server.port, retries=3)["attempts"] == 1


def test_hundreds_of_streams_at_once_in_one_thread(ask: Asker) -> None:
    before = threading.active_count()
    with _server(HEAD, _chunk(WHOLE), _chunk(b"")) as server:
        records = ask.run(ask.client(server.port), *(replace(QUESTION, id=number) for number in range(300)))
        assert threading.active_count() <= before + 1
    assert {record["outcome"] for record in records} == {"completed"}
    assert [record["id"] for record in records] == list(range(300))


def test_a_policy_that_chooses_a_stranger_ends_the_run(ask: Asker) -> None:
    client = ask.client(1)

    def fail(*_: Any) -> str:
        raise WorkloadError("questions.target: my:policy returned 'p99s99'")

    client.chooser.choose = fail  # type: ignore[method-assign]
    with pytest.raises(WorkloadError, match="p99s99"):
        ask.run(client, QUESTION)
    assert ask.records[0]["outcome"] == "unfinished"


@pytest.mark.parametrize(
    ("answer", "queue"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 33\r\n\r\nllamacpp:requests_processing 2.0\n", 2.0),
        (b"HTTP/1.0 200 OK\r\n\r\nllamacpp:requests_processing 2.0\n", 2.0),
        (HEAD + b"-5\r\nllama", None),
        (b"HTTP/1.1 503 Off\r\nContent-Length: 0\r\n\r\n", None),
    ],
)
def test_every_poll_leaves_a_record(ask: Asker, answer: bytes, queue: float | None) -> None:
    written: list[dict[str, Any]] = []

    async def poll(client: Client) -> None:
        polls = Polls(
            connector=client.connector,
            endpoints=client.endpoints,
            queues=client.queues,
            chooser=client.chooser,
            write=written.append,
            t0_ns=client.t0_ns,
            interval_ns=LONG_NS,
        )
        client.chooser.names = lambda station, t_ns: ["p00s01"]  # type: ignore[method-assign]
        polling = asyncio.create_task(polls.run("gs-oslo"))
        while not written:
            await asyncio.sleep(0.01)
        polling.cancel()

    with _server(answer) as server:
        asyncio.run(asyncio.wait_for(poll(ask.client(server.port)), 10))
    assert [(row["station"], row["satellite"], row["queue"]) for row in written] == [("gs-oslo", "p00s01", queue)]
    assert written[0]["received_byte"] > 0


def test_who_asks_needs_nothing_of_the_net_and_the_servers() -> None:
    """A question that is due at once waits until its process has loaded what it imports."""
    words = "import sys, isl_emu.parts.questions.client; print('mininet' in sys.modules, 'aiohttp' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", words], text=True).split() == ["False", "False"]
