"""When satellites computed for a training with real gradients: that takes this machine's CPUs, and may."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from isl_emu.scenario.model import Scenario

Rows = Sequence[Mapping[str, Any]]


class Learning:
    """The CPUs that training really used, from the rows of its table.

    A participant is taken to begin with the first one of its step. Modelled gradients take no computing.
    """

    def __init__(self, rows: Rows, scenario: Scenario):
        slowdown = scenario.time.slowdown
        shares = {job.name: min(job.real.cpus / slowdown, 1.0) for job in scenario.training if job.real}
        spans = [span for row in rows if row["job"] in shares for span in _spans(row, shares[row["job"]])]
        self._begin_ns, self._end_ns, self._share = np.array(spans, dtype=np.float64).reshape(-1, 3).T

    def cpus(self, from_ns: int, to_ns: int) -> float:
        """The mean number of CPUs between two times."""
        overlap_ns = np.minimum(self._end_ns, to_ns) - np.maximum(self._begin_ns, from_ns)
        return float((np.clip(overlap_ns, 0.0, None) * self._share).sum()) / (to_ns - from_ns)


def _spans(row: Mapping[str, Any], share: float) -> Iterator[tuple[int, int, float]]:
    for compute_ns in row["compute_ns"] or ():
        if compute_ns is not None and row["t_start_ns"] is not None:
            yield row["t_start_ns"], row["t_start_ns"] + compute_ns, share
