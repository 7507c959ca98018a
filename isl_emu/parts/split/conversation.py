"""A question under way: from the thread that speaks HTTP to the one that runs the ring, and the tokens back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any


@dataclass(eq=False)
class Conversation:
    """A prompt and its answer so far.

    Args:
        limit: the most tokens of the answer.
        cancelled: nobody listens any more.
    """

    prompt: list[int]
    limit: int
    temperature: float
    seed: int
    tokens: list[int] = field(default_factory=list)
    cancelled: bool = False
    finish: str | None = None
    _news: SimpleQueue[int | None] = field(default_factory=SimpleQueue)
    _marks_s: dict[str, float] = field(default_factory=dict)  # by the machine's clock, as llama.cpp's timings are

    def begin(self) -> None:
        """The prompt is on its way."""
        self._marks_s["begun"] = time.monotonic()

    def take(self, token: int, ends: set[int]) -> None:
        """The next token has come; one of `ends`, or the last that is allowed, finishes the answer."""
        self._marks_s.setdefault("first", time.monotonic())
        if token in ends:
            self.end("stop")
            return
        self.tokens.append(token)
        self._news.put(token)
        if len(self.tokens) >= self.limit:
            self.end("length")

    def end(self, reason: str) -> None:
        """Nothing follows."""
        self.finish = reason
        self._marks_s["ended"] = time.monotonic()
        self._news.put(None)

    def arriving(self) -> Iterator[int]:
        """The tokens of the answer as they come."""
        while (token := self._news.get()) is not None:
            yield token

    def usage(self) -> dict[str, int]:
        """As in OpenAI's format."""
        return {
            "prompt_tokens": len(self.prompt),
            "completion_tokens": len(self.tokens),
            "total_tokens": len(self.prompt) + len(self.tokens),
        }

    def timings(self) -> dict[str, Any]:
        """As in llama.cpp's answers, by the machine's clock: until the first token, and from there to the end."""
        marks_s = self._marks_s
        return {
            "prompt_n": len(self.prompt),
            "prompt_ms": 1e3 * (marks_s["first"] - marks_s["begun"]),
            "predicted_n": len(self.tokens),
            "predicted_ms": 1e3 * (marks_s["ended"] - marks_s["first"]),
        }
