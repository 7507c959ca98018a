"""At what pace energy and heat let each satellite's computer work, over the time of a run."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


class AllowedPace:
    """The pace of the energy table, 1 where it has no row: nothing limits a computer without power of its own.

    Args:
        table: energy.parquet, if there is one.
    """

    def __init__(self, table: pa.Table | None):
        names = [] if table is None else pc.unique(table.column("satellite")).to_pylist()
        self._rows = {name: _rows(table.filter(pc.equal(table.column("satellite"), name))) for name in names}

    def mean_ratio(self, satellite: str, from_ns: int, to_ns: int) -> float:
        """The mean pace of a satellite between two times."""
        if satellite not in self._rows or to_ns <= from_ns:
            return 1.0
        begin_ns, end_ns, pace = self._rows[satellite]
        overlap_ns = np.clip(np.minimum(end_ns, to_ns) - np.maximum(begin_ns, from_ns), 0, None)
        return float(1.0 - overlap_ns @ (1.0 - pace) / (to_ns - from_ns))


def _rows(table: pa.Table) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """When each interval of one satellite began and ended, and its pace."""
    end_ns = table.column("t_ns").to_numpy()
    return end_ns - table.column("interval_ns").to_numpy(), end_ns, table.column("pace_ratio").to_numpy()
