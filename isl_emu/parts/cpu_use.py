"""The machine's CPUs that programs on satellites took at known times."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

Share = Callable[[str, int, int], float]
"""A part of the whole that a satellite has between two times: (satellite, from_ns, to_ns) -> 0..1."""


class Spells:
    """Spells of computing, each with the share of a CPU that it may have taken.

    Args:
        spells: from when, to when, and with how many CPUs.
        watched: whether each is a piece of work that lasts too long if there are too few CPUs.
    """

    def __init__(self, spells: Iterable[tuple[int, int, float]], watched: bool = False):
        rows = list(spells)
        self.spans: Sequence[tuple[int, int]] = [(begin, end) for begin, end, _ in rows] if watched else ()
        self._begin_ns, self._end_ns, self._cpus = np.array(rows, dtype=np.float64).reshape(-1, 3).T

    def mean_cpus(self, from_ns: int, to_ns: int) -> float:
        """The mean number of CPUs between two times."""
        overlap_ns = np.minimum(self._end_ns, to_ns) - np.maximum(self._begin_ns, from_ns)
        return float((np.clip(overlap_ns, 0.0, None) * self._cpus).sum()) / (to_ns - from_ns)


def shares_of_a_cpu(cpus: Mapping[str, float], pace: Share, slowdown: float) -> Share:
    """The CPU that a satellite's only thread may take.

    In slow motion it gets less, for longer, and so does one that is short of energy, or too hot.

    Args:
        cpus: what each satellite's thread has at the scenario's own pace; none for others.
        pace: what it was allowed of that.
    """

    def share(satellite: str, from_ns: int, to_ns: int) -> float:
        return min(cpus.get(satellite, 0.0) * pace(satellite, from_ns, to_ns) / slowdown, 1.0)

    return share
