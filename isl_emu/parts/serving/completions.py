"""The bodies of a chat server's answers, as llama.cpp's server writes them in OpenAI's format.

Source: https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

STREAMED, WHOLE = "chat.completion.chunk", "chat.completion"


def event(body: Mapping[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n"


def chunk(answer: Mapping[str, Any], delta: Mapping[str, Any], finish: str | None = None) -> bytes:
    """The event of a part of an answer.

    Args:
        answer: what every part of it has, such as its `id` and `model`.
    """
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return event({"choices": [choice], **answer, "object": STREAMED})


def last_chunk(answer: Mapping[str, Any], usage: Mapping[str, int], timings: Mapping[str, float]) -> bytes:
    """The event with the counts and the server's own times."""
    return event({"choices": [], **answer, "object": STREAMED, "usage": usage, "timings": timings})


def usage(prompt_tokens: int, answer_tokens: int) -> dict[str, int]:
    """The counts of an answer."""
    total = prompt_tokens + answer_tokens
    return {"prompt_tokens": prompt_tokens, "completion_tokens": answer_tokens, "total_tokens": total}


def timings(prompt_tokens: int, prompt_ms: float, answer_tokens: int, predicted_ms: float) -> dict[str, float]:
    """The server's own times of an answer; waiting for a slot is not in them."""
    return {
        "prompt_n": prompt_tokens,
        "prompt_ms": round(prompt_ms, 3),
        "predicted_n": answer_tokens,
        "predicted_ms": round(predicted_ms, 3),
    }


def refusal(status: int, kind: str, message: str) -> dict[str, Any]:
    """The body of an error."""
    return {"error": {"code": status, "type": kind, "message": message}}


def metrics(gauges: Mapping[str, float], counters: Mapping[str, float]) -> str:
    """A page of metrics in Prometheus's text format, under llama.cpp's names."""
    kinds = [("gauge", gauges), ("counter", counters)]
    rows = [(name, kind, value) for kind, values in kinds for name, value in values.items()]
    return "".join(f"# TYPE llamacpp:{name} {kind}\nllamacpp:{name} {value:g}\n" for name, kind, value in rows)
