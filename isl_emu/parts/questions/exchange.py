"""One question and its streamed answer over HTTP, and what became of it.

The times are a user's: everything between sending the question and reading a token, so network, queues and model. The
server's own times come in its last event; what is left of the whole is the network's share.
"""

from __future__ import annotations

import errno
import json
import os
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from isl_emu.parts.questions.asking import Asking
from isl_emu.parts.questions.requests import PlannedRequest
from isl_emu.parts.questions.tcp_bytes import WireBytes
from isl_emu.parts.serving.model_server import MODEL_ALIAS
from isl_emu.timebase import Clock
from isl_emu.units import NS_PER_MS, NS_PER_S

# Past its deadline an answer is still read as long as it keeps coming: late is not lost.
STALL_NS = 5 * NS_PER_S
NO_ROUTE = {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EINVAL, errno.EACCES}  # the last two: blackhole, prohibit
UNFINISHED = ("unfinished", "the run ended first")
COMPLETED = ("completed", None)


class RefusedError(Exception):
    """The server answered with an error."""


class UnavailableError(RefusedError):
    """The server said that it cannot serve now: HTTP status 503."""


@dataclass
class Attempt:
    """One try to have a question answered: what has been sent and received so far.

    Args:
        satellite: who is asked; None if nobody can be.
        t_token_ns: when each token came, on the clock's scale.
    """

    satellite: str | None
    t_send_ns: int
    connected: bool = False
    done: bool = False
    t_token_ns: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    usage: dict[str, int] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)
    wire: WireBytes = WireBytes()
    stood_ns: int = 0  # for how long the clock had stood when it was sent

    def take(self, event: str, now_ns: int) -> None:
        """Take in one event of the answer.

        Raises:
            RefusedError: it is an error.
        """
        if event == "[DONE]":
            self.done = True
            return
        content = json.loads(event)
        if "error" in content:
            raise RefusedError(error_text(content))
        for choice in content.get("choices", ()):
            if text := choice.get("delta", {}).get("content"):
                self.texts.append(text)
                self.t_token_ns.append(now_ns)
        self.usage = content.get("usage") or self.usage
        self.timings = content.get("timings") or self.timings

    def patient_until_ns(self, asking: Asking) -> int:
        """Until when to wait for more.

        That is the time-out of an attempt after the last sign of life; without one the deadline, or a stall's length
        after the last token if that is later.
        """
        if asking.attempt_timeout_ns is not None:
            return (self.t_token_ns[-1] if self.t_token_ns else self.t_send_ns) + asking.attempt_timeout_ns
        end_ns = self.t_send_ns + asking.deadline_ns
        return max(end_ns, self.t_token_ns[-1] + STALL_NS) if self.t_token_ns else end_ns

    @property
    def tokens(self) -> int:
        """How many tokens came, as the server counts them if it does."""
        return self.usage.get("completion_tokens", len(self.t_token_ns))

    def record(self, outcome: str, error: str | None, now_ns: int, t0_ns: int) -> dict[str, Any]:
        """The attempt's line, with times since `t0_ns`."""
        return {
            "satellite": self.satellite,
            "t_send_ns": self.t_send_ns - t0_ns,
            "t_first_ns": self.t_token_ns[0] - t0_ns if self.t_token_ns else None,
            "t_finish_ns": now_ns - t0_ns,
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
    """

    request: PlannedRequest
    t_due_ns: int
    attempts: list[Attempt] = field(default_factory=list)

    def record(self, outcome: str, error: str | None, clock: Clock, t0_ns: int) -> dict[str, Any]:
        """The journal's line, with times since `t0_ns`.

        The server has measured its own times in the machine's; they are unknown if the run paused meanwhile.
        """
        request, now_ns = self.request, clock.now_ns()
        last = self.attempts[-1] if self.attempts else Attempt(request.satellite, now_ns)
        tokens, send_ns = last.t_token_ns, self.attempts[0].t_send_ns if self.attempts else None
        timings = last.timings if clock.stood_ns() == last.stood_ns else {}
        wire = sum((attempt.wire for attempt in self.attempts), WireBytes())
        return {
            "id": request.id,
            "station": request.station,
            "satellite": last.satellite,
            "question": request.question,
            "answer": "".join(last.texts),
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
            "prompt_tokens": last.usage.get("prompt_tokens"),
            "answer_tokens": last.tokens,
            "server_prompt_ns": _own_ns(timings.get("prompt_ms"), clock),
            "server_predict_ns": _own_ns(timings.get("predicted_ms"), clock),
            "sent_byte": wire.sent,
            "received_byte": wire.received,
        }


def body(request: PlannedRequest) -> dict[str, Any]:
    """The request in OpenAI's format.

    By default the server may not reuse what it computed for an earlier prompt (`cache_prompt`): the time to the first
    token would depend on who asked before. An answer of exact length goes on past the model's own end (`ignore_eos`).
    Thinking aloud is off, because an answer's first token is what a user waits for.
    """
    system = [{"role": "system", "content": request.system}] if request.system else []
    return {
        "model": MODEL_ALIAS,
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
    return "failed", (os.strerror(code) if code else str(error)) or type(error).__name__


def error_text(answer: Any) -> str:
    """What a server's answer says is wrong."""
    error = answer.get("error") if isinstance(answer, dict) else None
    return str(error.get("message", error) if isinstance(error, dict) else error or answer)


def _own_ns(real_ms: float | None, clock: Clock) -> int | None:
    return None if real_ms is None else clock.own_ns(round(real_ms * NS_PER_MS))
