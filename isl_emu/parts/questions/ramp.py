"""The course of a load over time: a piecewise linear share of the full load, as a scenario's `ramp` gives it.

Open arrivals follow it by rescaling of time: an arrival that the full load has at s comes when the integral of the
share has reached s. Poisson arrivals so become those with the rate at each instant, exactly and with one random number
each; regular ones come where the rising count passes a whole number.

Source: Çınlar, Introduction to Stochastic Processes (1975), section 4.7: a Poisson process whose time is rescaled.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise


class Ramp:
    """A load over time.

    Args:
        points: time, ns, and share of the full load, 0 to 1, by rising time; linear between them, and constant before
            the first and after the last.
    """

    def __init__(self, points: Sequence[tuple[int, float]]):
        self._points = [(0, points[0][1]), *points] if points[0][0] > 0 else list(points)

    def reached_ns(self, full_ns: float) -> float:
        """When as much load has come as the full one brings in `full_ns`, above 0; infinite if that is never."""
        left_ns = full_ns
        for (from_ns, low), (to_ns, high) in pairwise(self._points):
            length_ns = to_ns - from_ns
            area_ns = (low + high) / 2 * length_ns
            if 0 < left_ns <= area_ns:
                # the root of low x + (high - low) x^2 / (2 length) = left, in the form that loses no digits
                root = math.sqrt(max(0.0, low**2 + 2 * (high - low) * left_ns / length_ns))
                return from_ns + 2 * left_ns / (low + root)
            left_ns -= area_ns
        last_ns, last = self._points[-1]
        return last_ns + left_ns / last if last > 0 else math.inf

    def next_ns(self, t_ns: int, level: float) -> int | None:
        """The first time, `t_ns` or later, at which the share is `level` or more; None if that is never."""
        for from_ns, low, to_ns, high in self._pieces():
            if to_ns is not None and to_ns < t_ns:
                continue
            begin_ns = max(from_ns, t_ns)
            slope = 0.0 if to_ns is None else (high - low) / (to_ns - from_ns)
            if low + slope * (begin_ns - from_ns) >= level:
                return begin_ns
            if to_ns is not None and high >= level:
                return min(to_ns, max(begin_ns, math.ceil(from_ns + (level - low) / slope)))
        return None

    def _pieces(self) -> Iterator[tuple[int, float, int | None, float]]:
        """Begin and share there, end and share there; the last one has no end."""
        for (from_ns, low), (to_ns, high) in pairwise(self._points):
            yield from_ns, low, to_ns, high
        last_ns, last = self._points[-1]
        yield last_ns, last, None, last
