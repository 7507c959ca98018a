"""The percentiles of a measured quantity, as the field reports them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Distribution:
    """How one quantity is spread; every figure is None when there are no values: a gap stays a gap.

    Percentiles interpolate linearly between the closest values (numpy's default, Hyndman and Fan's type 7).
    """

    count: int
    p50: float | None
    p90: float | None
    p95: float | None
    p99: float | None
    max: float | None

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Distribution:
        """The distribution of `values`; those that are None are left out."""
        known = np.array([value for value in values if value is not None], dtype=np.float64)
        if not known.size:
            return cls(0, None, None, None, None, None)
        return cls(known.size, *(round(float(figure), 3) for figure in np.percentile(known, (50, 90, 95, 99, 100))))
