"""Links found up, before they are ordered into a plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np


@dataclass(frozen=True)
class Rows:
    """Links up at instants, R of them in any order; all arrays have shape (R,)."""

    k: np.ndarray  # int64
    a: np.ndarray  # int64, node index
    b: np.ndarray  # int64, node index, b > a
    delay_ns: np.ndarray  # int64
    rate_ab_bit_s: np.ndarray  # int64
    rate_ba_bit_s: np.ndarray  # int64
    loss_ratio: np.ndarray  # float64

    def later(self, instants: int) -> Rows:
        """The same, so many instants later."""
        return replace(self, k=self.k + instants)


def joined_rows(parts: Sequence[Rows]) -> Rows:
    """All rows of several records."""
    return Rows(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Rows)))
