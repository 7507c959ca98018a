"""One question and its streamed answer over HTTP, and what became of it.

The times are a user's: everything between sending the question and reading a token, so network, queues and model. The
server's own times come in its last event; what is left of the whole is the network's share.

How many bytes its connection has put on the wire and taken from it, the kernel knows. It counts payload and segments; a
segment is an IPv4 packet with 20 bytes of IP and 20 of TCP header, and 12 more of options where both ends use time
stamps. Options of the first packets (8 bytes) and Ethernet are not counted. Retransmissions are, as they cross the
lasers too.
"""

from __future__ import annotations

import errno
import json
import math
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from isl_emu.nodes.tcp_info import tcp_counters
from isl_emu.parts.questions.asking import Asking
from isl_emu.parts.questions.conversations import Message
from isl_emu.parts.questions.requests import PlannedRequest
from isl_emu.parts.serving.model_server import MODEL_ALIAS
from isl_emu.runs.endpoints import Endpoint
from isl_emu.timebase import Clock
from isl_emu.units import NS_PER_MS, NS_PER_S

# Past its deadline an answer is still read as long as it keeps coming: late is not lost.
STALL_NS = 5 * NS_PER_S
NO_ROUTE = {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EINVAL, errno.EACCES}  # the last two: blackhole, prohibit
# An answer of one of these says that the server cannot serve now: timed out, too early, too many, a gateway without its
# server, overloaded. Sources: RFC 9110, RFC 8470, RFC 6585; 529 is in use where servers are hired.
NOT_NOW = frozenset({408, 425, 429, 502, 503, 504, 529})
# What of a streamed choice counts as tokens of an answer, because servers count it: text, thinking aloud, tool calls.
# Source: the chunks of OpenAI, llama.cpp, vLLM (`reasoning`), SGLang, Ollama (`thinking`); a completion has `text`.
GENERATED = (
    "content", "text", "reasoning_content", "reasoning", "thinking", "refusal", "tool_calls", "function_call", "audio",
)  # fmt: skip
SHOWN = 200  # characters of an answer that is not understood
MOST_TOKENS, MOST_BYTE = 2**31 - 1, 2**63 - 1  # in a column of results
LONGEST_OWN_MS = 1e9  # of a server's own times: 11 days
UNFINISHED = ("unfinished", "the run ended first")
COMPLETED = ("completed", None)
HEADER_BYTE, TIMESTAMP_BYTE = 40, 12  # of a segment


class RefusedError(Exception):
    """The server answered with an error."""


class UnavailableError(RefusedError):
    """The server said that it cannot serve now, by one of the statuses `NOT_NOW`."""


@dataclass(frozen=True)
class WireBytes:
    """What went out and what came in, as IP packets."""

    sent: int = 0
    received: int = 0

    def __add__(self, other: WireBytes) -> WireBytes:
        return WireBytes(self.sent + other.sent, self.received + other.received)


def wire_bytes(connection: socket.socket) -> WireBytes:
    """The bytes of a connection so far; none if its socket is closed."""
    try:
        counters = tcp_counters(connection)
    except OSError:
        return WireBytes()
    header = HEADER_BYTE + (TIMESTAMP_BYTE if counters.timestamps else 0)
    return WireBytes(
        counters.sent_byte + header * counters.segments_out, counters.received_byte + header * counters.segments_in
    )


@dataclass
class Attempt:
    """One try to have a question answered: what has been sent and received so far.

    Args:
        satellite: who is asked; None if nobody can be.
        t_token_ns: when each event with something of the answer came, on the clock's scale.
        t_life_ns: when anything came last, were it only a sign that the server is still there.
        finished: the answer has an end, though the stream may go on with counts and its own end.
    """

    satellite: str | None
    t_send_ns: int
    connected: bool = False
    done: bool = False
    finished: bool = False
    t_token_ns: list[int] = field(default_factory=list)
    t_life_ns: int | None = None
    t_event_ns: int | None = None
    texts: list[str] = field(default_factory=list)
    usage: dict[str, int] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)
    wire: WireBytes = WireBytes()
    stood_ns: int = 0  # for how long the clock had stood when it was sent

    def take(self, event: str, now_ns: int) -> None:
        """Take in one event of the answer, whatever a server may put into one.

        Raises:
            RefusedError: it is an error.
            ValueError: it is none of a streamed answer.
        """
        self.t_event_ns = now_ns
        if event.strip() == "[DONE]":
            self.done = True
            return
        try:
            content = json.loads(event)
        except (ValueError, RecursionError):
            content = None
        if not isinstance(content, dict):
            shown = " ".join(event.split())[:SHOWN]
            raise ValueError(f"an event of the answer is no JSON object, as a streamed answer needs: {shown}")
        if content.get("error") or content.get("object") == "error":
            raise refused(content)
        came = False
        for choice in _records(content.get("choices")):
            for part in (choice, *_records([choice.get("delta"), choice.get("message")])):
                self.texts += [text for key in ("content", "text") for text in _texts(part.get(key))]
                came = came or any(_says_something(part.get(key)) for key in GENERATED)
            self.finished = self.finished or bool(choice.get("finish_reason"))
        if came:
            self.t_token_ns.append(now_ns)
        self.usage |= _numbers(content.get("usage"), ("prompt_tokens", "completion_tokens"), MOST_TOKENS)
        self.usage |= _numbers(content.get("timings"), ("cache_n", "moved_n"), MOST_TOKENS)
        self.usage |= _numbers(content.get("timings"), ("moved_byte",), MOST_BYTE)
        self.timings |= _numbers(content.get("timings"), ("prompt_ms", "predicted_ms", "moved_ms"), LONGEST_OWN_MS)

    def patient_until_ns(self, asking: Asking) -> int:
        """Until when to wait for more.

        That is the time-out of an attempt after the last sign of life; without one the deadline, or a stall's length
        after the last token if that is later. Of a finished answer only its counts are still to come.
        """
        if self.finished and self.t_event_ns is not None:
            return self.t_event_ns + STALL_NS
        if asking.attempt_timeout_ns is not None:
            return (self.t_send_ns if self.t_life_ns is None else self.t_life_ns) + asking.attempt_timeout_ns
        end_ns = self.t_send_ns + asking.deadline_ns
        return max(end_ns, self.t_token_ns[-1] + STALL_NS) if self.t_token_ns else end_ns

    @property
    def whole(self) -> bool:
        """Whether the answer has come to its end: the stream says so, or the choice in it."""
        return self.done or self.finished

    @property
    def tokens(self) -> int:
        """How many tokens came, as the server counts them if it does, and never fewer than came apart."""
        return max(int(self.usage.get("completion_tokens", 0)), len(self.t_token_ns))

    def t_end_ns(self, outcome: str, now_ns: int) -> int:
        """When it ended: a complete answer with its last event, though the connection may have been open for longer."""
        return self.t_event_ns if outcome == COMPLETED[0] and self.whole and self.t_event_ns is not None else now_ns

    def record(self, outcome: str, error: str | None, now_ns: int, t0_ns: int) -> dict[str, Any]:
        """The attempt's line, with times since `t0_ns`."""
        return {
            "satellite": self.satellite,
            "t_send_ns": self.t_send_ns - t0_ns,
            "t_first_ns": self.t_token_ns[0] - t0_ns if self.t_token_ns else None,
            "t_finish_ns": self.t_end_ns(outcome, now_ns) - t0_ns,
            "outcome": outcome,
            "error": error,
            "answer_tokens": self.tokens,
            "sent_byte": self.wire.sent,
            "received_byte": self.wire.received,
        }


@dataclass
class OpenRequest:
    """A request under way, with all attempts so far; the last one counts, the others cost time.

    Args:
        t_due_ns: when it was to be sent, on the clock's scale.
        context: what its prompt says before its question, beside the scenario's system message.
        holder: the satellite that has read that, as far as one did.
    """

    request: PlannedRequest
    t_due_ns: int
    attempts: list[Attempt] = field(default_factory=list)
    context: tuple[Message, ...] = ()
    holder: str | None = None

    @property
    def next_holder(self) -> str | None:
        """Who has read its prompt, for the next turn: whoever began to answer it, or else who had before."""
        return next((one.satellite for one in reversed(self.attempts) if one.t_token_ns), self.holder)

    def record(self, outcome: str, error: str | None, clock: Clock, t0_ns: int) -> dict[str, Any]:
        """The journal's line, with times since `t0_ns`.

        The server has measured its own times in the machine's; they are unknown if the run paused meanwhile.
        """
        request, now_ns = self.request, clock.now_ns()
        last = self.attempts[-1] if self.attempts else Attempt(request.satellite, now_ns)
        now_ns = last.t_end_ns(outcome, now_ns)
        tokens, send_ns = last.t_token_ns, self.attempts[0].t_send_ns if self.attempts else None
        timings = last.timings if clock.stood_ns() == last.stood_ns else {}
        prompt_tokens, cached_tokens = last.usage.get("prompt_tokens"), last.usage.get("cache_n")
        wire = sum((attempt.wire for attempt in self.attempts), WireBytes())
        return {
            "id": request.id,
            "station": request.station,
            "user": request.user,
            "conversation": request.conversation,
            "conversation_id": request.conversation_id,
            "turn": request.turn,
            "think_ns": None if request.turn is None or request.after is None else request.think_ns,
            "satellite": last.satellite,
            "question": request.question,
            "answer": _readable("".join(last.texts)),
            "outcome": outcome,
            "error": error,
            "t_due_ns": self.t_due_ns - t0_ns,
            "t_send_ns": None if send_ns is None else send_ns - t0_ns,
            "t_last_send_ns": last.t_send_ns - t0_ns if self.attempts else None,
            "t_first_ns": tokens[0] - t0_ns if tokens else None,
            "t_finish_ns": now_ns - t0_ns,
            "ttft_ns": tokens[0] - send_ns if tokens and send_ns is not None else None,
            "itl_ns": [later - earlier for earlier, later in pairwise(tokens)],
            "e2e_ns": now_ns - send_ns if outcome == "completed" and send_ns is not None else None,
            "attempts": len(self.attempts),
            "prompt_tokens": None if prompt_tokens is None else int(prompt_tokens),
            "cached_tokens": None if cached_tokens is None else int(cached_tokens),
            "context_from": None if last.satellite in (None, self.holder) else self.holder,
            "moved_tokens": last.usage.get("moved_n"),
            "moved_byte": last.usage.get("moved_byte"),
            "move_ns": _own_ns(timings.get("moved_ms"), clock),
            "answer_tokens": last.tokens,
            "server_prompt_ns": _own_ns(timings.get("prompt_ms"), clock),
            "server_predict_ns": _own_ns(timings.get("predicted_ms"), clock),
            "sent_byte": wire.sent,
            "received_byte": wire.received,
        }


def body(request: PlannedRequest, context: Sequence[Message] = (), holder: Endpoint | None = None) -> dict[str, Any]:
    """The request in OpenAI's format, with what was said before it.

    By default the server may not reuse what it computed for an earlier prompt (`cache_prompt`): the time to the first
    token would depend on who asked before. An answer of exact length goes on past the model's own end (`ignore_eos`).
    Thinking aloud is off, because an answer's first token is what a user waits for.

    Args:
        holder: from where the server is to get what it has not computed of it; told in vLLM's words.
    """
    from_there = holder and {"do_remote_prefill": True, "remote_host": holder.address, "remote_port": holder.port}
    system = [("system", request.system)] if request.system else []
    said = [*system, *context, ("user", request.question)]
    return {
        "model": MODEL_ALIAS,
        "messages": [{"role": role, "content": text} for role, text in said],
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "seed": request.seed,
        "stream": True,
        "stream_options": {"include_usage": True},
        "cache_prompt": request.reuse_prefix,
        **({"ignore_eos": True} if request.exact_length else {}),
        **({"kv_transfer_params": from_there} if holder else {}),
        "chat_template_kwargs": {"enable_thinking": False},
    }


def judge(error: Exception, connected: bool) -> tuple[str, str]:
    """The outcome that an exception stands for, and a sentence about it."""
    if isinstance(error, UnavailableError):
        return "unavailable", str(error)
    if isinstance(error, RefusedError):
        return "refused", str(error)
    if isinstance(error, TimeoutError):
        return "timed_out", "nothing came any more before the deadline"
    code, strerror = (error.errno, error.strerror) if isinstance(error, OSError) else (None, None)
    if code == errno.ECONNREFUSED:
        return "unavailable", "nobody listened: there is no server, or its computer is off"
    if code in NO_ROUTE and not connected:
        return "unreachable", f"there was no route when it was sent ({strerror})"
    if code in NO_ROUTE:
        return "path_lost", f"the route was lost ({strerror})"
    return "failed", (os.strerror(code) if code else _readable(str(error))) or type(error).__name__


def refused(answer: Any, status: int | None = None) -> RefusedError:
    """The error that a server has answered with, by its HTTP status or the code in its body."""
    error = answer.get("error") if isinstance(answer, dict) else None
    codes = {status, *(one.get(key) for one in _records([answer, error]) for key in ("code", "status"))}
    text = _readable(error_text(answer)) if status is None else f"HTTP status {status}: {_readable(error_text(answer))}"
    return (UnavailableError if any(code in NOT_NOW for code in codes if type(code) is int) else RefusedError)(text)


def error_text(answer: Any) -> str:
    """What a server's answer says is wrong."""
    error = answer.get("error") if isinstance(answer, dict) else None
    if isinstance(error, dict):
        return str(error.get("message") or error)
    if isinstance(answer, dict):
        error = error or answer.get("message") or answer.get("detail")
    return str(error or answer)


def _records(found: Any) -> Iterator[Mapping[str, Any]]:
    """The records in a list, if it is one."""
    return (one for one in (found if isinstance(found, list) else ()) if isinstance(one, dict))


def _texts(content: Any) -> Iterator[str]:
    """The text of a content: itself, or that of its parts."""
    if isinstance(content, str):
        if content:
            yield content
    elif isinstance(content, list):
        for part in content:
            yield from _texts(part.get("text") if isinstance(part, dict) else part)


def _says_something(content: Any) -> bool:
    """Whether there is anything in it."""
    return any(map(_says_something, content)) if isinstance(content, list) else bool(content)


def _numbers(found: Any, keys: tuple[str, ...], most: float) -> dict[str, Any]:
    """The sensible numbers among those that a server tells by these names."""
    told = found if isinstance(found, dict) else {}
    values = {key: told[key] for key in keys if type(told.get(key)) in (int, float)}
    return {key: value for key, value in values.items() if math.isfinite(value) and 0 <= value <= most}


def _readable(text: str) -> str:
    """The same text without half characters, as which JSON may send what is beyond 16 bits; those can't be written."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _own_ns(real_ms: float | None, clock: Clock) -> int | None:
    return None if real_ms is None else clock.own_ns(round(real_ms * NS_PER_MS))
