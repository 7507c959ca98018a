"""One question and its streamed answer over HTTP, and what became of it.

The times are a user's: everything between sending the question and reading a token, so network, queues and model. The
server's own times come in its last event; what is left of the whole is the network's share.
"""

from __future__ import annotations

import errno
import json
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPResponse
from itertools import pairwise
from typing import Any

from isl_emu.timebase import Clock
from isl_emu.units import NS_PER_MS, NS_PER_S
from isl_emu.workload.patience import PatientSocket
from isl_emu.workload.requests import PlannedRequest
from isl_emu.workload.sse import EventParser

PATH = "/v1/chat/completions"
RECEIVE_BYTE = 65_536
# Past its deadline an answer is still read as long as it keeps coming: late is not lost.
STALL_NS = 5 * NS_PER_S
NO_ROUTE = {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EINVAL, errno.EACCES}  # the last two: blackhole, prohibit


class RefusedError(Exception):
    """The server answered with an error."""


@dataclass
class Exchange:
    """A request under way: what has been sent and received so far.

    Args:
        t_token_ns: when each token came, on the clock's scale.
    """

    request: PlannedRequest
    t_send_ns: int | None = None
    connected: bool = False
    t_token_ns: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    usage: dict[str, int] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)
    stood_ns: int = 0  # for how long the clock had stood when it was sent

    def take(self, event: dict[str, Any], now_ns: int) -> None:
        """Take in one event of the answer.

        Raises:
            RefusedError: it is an error.
        """
        if "error" in event:
            raise RefusedError(_error_text(event))
        for choice in event.get("choices", ()):
            if text := choice.get("delta", {}).get("content"):
                self.texts.append(text)
                self.t_token_ns.append(now_ns)
        self.usage = event.get("usage") or self.usage
        self.timings = event.get("timings") or self.timings

    def record(self, outcome: str, error: str | None, clock: Clock, t0_ns: int) -> dict[str, Any]:
        """The journal's line, with times since `t0_ns`.

        The server has measured its own times in the machine's; they are unknown if the run paused meanwhile.
        """
        timings = self.timings if clock.stood_ns() == self.stood_ns else {}
        request, tokens, now_ns = self.request, self.t_token_ns, clock.now_ns()
        first_ns = tokens[0] if tokens else None
        completed = outcome == "completed"
        return {
            "id": request.id,
            "station": request.station,
            "satellite": request.satellite,
            "question": request.question,
            "answer": "".join(self.texts),
            "outcome": outcome,
            "error": error,
            "t_due_ns": request.t_due_ns,
            "t_send_ns": _since(t0_ns, self.t_send_ns),
            "t_first_ns": _since(t0_ns, first_ns),
            "t_finish_ns": now_ns - t0_ns,
            "ttft_ns": None if first_ns is None else first_ns - self.t_send_ns,
            "itl_ns": [later - earlier for earlier, later in pairwise(tokens)],
            "e2e_ns": now_ns - self.t_send_ns if completed else None,
            "prompt_tokens": self.usage.get("prompt_tokens"),
            "answer_tokens": self.usage.get("completion_tokens", len(tokens)),
            "server_prompt_ns": _own_ns(timings.get("prompt_ms"), clock),
            "server_predict_ns": _own_ns(timings.get("predicted_ms"), clock),
        }


def converse(
    exchange: Exchange,
    source: str,
    target: tuple[str, int],
    deadline_ns: int,
    clock: Clock,
    watch: Callable[[socket.socket], None],
) -> None:
    """Send the question and read the whole answer into `exchange`.

    Args:
        source: the station's address.
        target: address and port of the server.
        deadline_ns: how long after it was sent an answer that has stopped coming is given up.
        watch: is given the socket before it connects; shutting it down ends the exchange with an exception.

    Raises:
        TimeoutError: nothing came any more.
        RefusedError: the server answered with an error.
        OSError, HTTPException: no route, no server, or a broken connection.
    """
    exchange.t_send_ns, exchange.stood_ns = clock.now_ns(), clock.stood_ns()
    end_ns = exchange.t_send_ns + deadline_ns
    connection = HTTPConnection(*target)
    try:
        connection.sock = sock = _open_socket(source, clock, end_ns)
        watch(connection.sock)
        connection.sock.connect(target)
        exchange.connected = True
        connection.request("POST", PATH, json.dumps(body(exchange.request)), {"Content-Type": "application/json"})
        _read_answer(exchange, sock, connection.getresponse(), end_ns, clock)
    finally:
        connection.close()


def body(request: PlannedRequest) -> dict[str, Any]:
    """The request in OpenAI's format.

    By default the server may not reuse what it computed for an earlier prompt (`cache_prompt`): the time to the first
    token would depend on who asked before. An answer of exact length goes on past the model's own end (`ignore_eos`).
    Thinking aloud is off, because an answer's first token is what a user waits for.
    """
    system = [{"role": "system", "content": request.system}] if request.system else []
    return {
        "messages": [*system, {"role": "user", "content": request.question}],
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "seed": request.seed,
        "stream": True,
        "stream_options": {"include_usage": True},
        "cache_prompt": request.reuse_prefix,
        **({"ignore_eos": True} if request.exact_length else {}),
        "chat_template_kwargs": {"enable_thinking": False},
    }


def judge(error: Exception, connected: bool) -> tuple[str, str]:
    """The outcome that an exception stands for, and a sentence about it."""
    if isinstance(error, RefusedError):
        return "refused", str(error)
    if isinstance(error, TimeoutError):
        return "timed_out", "nothing came any more before the deadline"
    code = error.errno if isinstance(error, OSError) else None
    if code in NO_ROUTE and not connected:
        return "unreachable", f"there was no route when it was sent ({error.strerror})"
    if code in NO_ROUTE:
        return "path_lost", f"the route was lost ({error.strerror})"
    return "failed", str(error) or type(error).__name__


def _open_socket(source: str, clock: Clock, end_ns: int) -> PatientSocket:
    sock = PatientSocket(clock, end_ns)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.bind((source, 0))
    return sock


def _read_answer(exchange: Exchange, sock: PatientSocket, response: HTTPResponse, end_ns: int, clock: Clock) -> None:
    if response.status != 200:
        raise RefusedError(f"HTTP status {response.status}: {_refusal(response)}")
    parser = EventParser()
    while True:
        sock.deadline_ns = _patient_until_ns(exchange, end_ns)
        data = response.read1(RECEIVE_BYTE)
        if not data:
            raise HTTPException("the connection ended before the answer did")
        now_ns = clock.now_ns()
        for event in parser.feed(data):
            if event == "[DONE]":
                return
            exchange.take(json.loads(event), now_ns)


def _patient_until_ns(exchange: Exchange, end_ns: int) -> int:
    """Until when to wait for more: the deadline, or a stall's length after the last token if that is later."""
    return max(end_ns, exchange.t_token_ns[-1] + STALL_NS) if exchange.t_token_ns else end_ns


def _refusal(response: HTTPResponse) -> str:
    try:
        return _error_text(json.loads(response.read()))
    except (ValueError, OSError, HTTPException):
        return response.reason


def _error_text(answer: Any) -> str:
    error = answer.get("error") if isinstance(answer, dict) else None
    return str(error.get("message", error) if isinstance(error, dict) else error or answer)


def _since(t0_ns: int, t_ns: int | None) -> int | None:
    return None if t_ns is None else t_ns - t0_ns


def _own_ns(real_ms: float | None, clock: Clock) -> int | None:
    return None if real_ms is None else clock.own_ns(round(real_ms * NS_PER_MS))
