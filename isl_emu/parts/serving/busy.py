"""Who was answering when: satellites have a computer each, but in the emulator they share this machine's CPUs.

One model server keeps one CPU busy, and that is no distortion. Two that answer at the same time on one CPU each take
twice as long as they would in orbit, and that is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

Share = Callable[[str, int, int], float]  # (satellite, from_ns, to_ns) -> what it counts for then


class AnsweringTimes:
    """The times at which each satellite was computing an answer.

    A server's busy time is what it says itself (prompt and answer), counted back from the end of the request. A request
    that was cut off has no such times: its server counts as busy from sending to the last token that arrived.
    """

    def __init__(self, requests: Iterable[Mapping[str, Any]]):
        spans: dict[str, list[tuple[int, int]]] = {}
        for request in requests:
            span = service_span(request)
            if span:
                spans.setdefault(request["satellite"], []).append(span)
        self._spans: dict[str, np.ndarray] = {}  # of each the union, int64, shape (n, 2): with a queue it is busy once
        for satellite, times in spans.items():
            first, *others = sorted(times)
            merged = [list(first)]
            for begin_ns, end_ns in others:
                if begin_ns <= merged[-1][1]:
                    merged[-1][1] = max(merged[-1][1], end_ns)
                else:
                    merged.append([begin_ns, end_ns])
            self._spans[satellite] = np.array(merged, dtype=np.int64)

    def mean_count(self, from_ns: int, to_ns: int, share: Share | None = None) -> float:
        """The mean number of satellites that were answering between two times.

        Args:
            share: what a satellite counts for between two times, such as the CPUs that it may use; 1 if None.
        """
        if to_ns <= from_ns:
            return 0.0
        busy_ns = 0.0
        for satellite, times in self._spans.items():
            overlap_ns = np.minimum(times[:, 1], to_ns) - np.maximum(times[:, 0], from_ns)
            counts_for = 1.0 if share is None else share(satellite, from_ns, to_ns)
            busy_ns += counts_for * int(np.clip(overlap_ns, 0, None).sum())
        return busy_ns / (to_ns - from_ns)


def service_span(request: Mapping[str, Any]) -> tuple[int, int] | None:
    """From when to when the request kept its server busy; None if nothing came from one."""
    send_ns, first_ns, finish_ns = (request.get(key) for key in ("t_send_ns", "t_first_ns", "t_finish_ns"))
    if send_ns is None or first_ns is None or finish_ns is None or request.get("satellite") is None:
        return None
    prompt_ns, predict_ns = request.get("server_prompt_ns"), request.get("server_predict_ns")
    if prompt_ns is None or predict_ns is None:
        return send_ns, first_ns + sum(request.get("itl_ns") or ())
    return max(send_ns, finish_ns - prompt_ns - predict_ns), finish_ns


class AnsweringCpus:
    """The machine's CPUs that satellites used while they answered.

    Args:
        requests: rows of the table.
        share: the CPUs that a satellite uses while it answers.
    """

    def __init__(self, requests: Iterable[Mapping[str, Any]], share: Share):
        rows = list(requests)
        self._answering, self._share = AnsweringTimes(rows), share
        self.spans = [span for row in rows if (span := service_span(row))]

    def mean_cpus(self, from_ns: int, to_ns: int) -> float:
        """The mean number of CPUs between two times."""
        return self._answering.mean_count(from_ns, to_ns, self._share)
