"""How busy satellites are, as far as a station knows: each asks those it might use over the emulated network.

A station asks a satellite's server for its metrics every so often, from its own namespace, so the question crosses the
lasers, is late by what the path and a busy server add, and gets lost where the path is. What it hears is old until it
hears again; in between a station counts what it has sent there itself, but knows nothing of what others send.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

# What llama.cpp's server, and vLLM, call requests that are worked on and that wait.
_GAUGE = re.compile(
    r"^(?:llamacpp:requests_(?P<a>processing|deferred)|vllm:num_requests_(?P<b>running|waiting))(?:\{.*\})? +(\S+)",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Heard:
    """What a station heard of a satellite's queue, and when it had asked."""

    t_asked_ns: int
    queue: float


class Queues:
    """What all stations know about the queues of satellites."""

    def __init__(self) -> None:
        self._heard: dict[tuple[str, str], Heard] = {}
        self._sent_since: Counter[tuple[str, str]] = Counter()

    def hear(self, station: str, satellite: str, heard: Heard, sent_before: int) -> None:
        """A satellite has told a station its queue.

        Args:
            sent_before: what `sent` was when the station asked.
        """
        self._heard[station, satellite] = heard
        self._sent_since[station, satellite] -= sent_before

    def send(self, station: str, satellite: str) -> None:
        """A station sends a satellite a question."""
        self._sent_since[station, satellite] += 1

    def sent(self, station: str, satellite: str) -> int:
        """How many questions have gone there since the last news."""
        return self._sent_since[station, satellite]

    def of(self, station: str, satellite: str, t_ns: int) -> tuple[float | None, int | None]:
        """The queue of a satellite as a station knows it, and how old that is; nothing if it never heard."""
        heard = self._heard.get((station, satellite))
        if heard is None:
            return None, None
        return heard.queue + self._sent_since[station, satellite], t_ns - heard.t_asked_ns


def queue_of(metrics: str) -> float | None:
    """How many requests a server works on or keeps waiting, by its metrics in Prometheus' text format."""
    values = [float(match[3]) for match in _GAUGE.finditer(metrics)]
    return sum(values) if values else None
