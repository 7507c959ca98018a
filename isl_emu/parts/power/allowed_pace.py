"""At what pace energy and heat let each satellite's computer work, over the time of a run."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa


class AllowedPace:
    """The pace of the energy table, 1 where it has no row: nothing limits a computer without power of its own.

    Args:
        table: energy.parquet, if there is one.
    """

    def __init__(self, table: pa.Table | None):
        self._rows = {} if table is None else dict(_rows_by_satellite(table))

    def mean_ratio(self, satellite: str, from_ns: int, to_ns: int) -> float:
        """The mean pace of a satellite between two times."""
        if satellite not in self._rows or to_ns <= from_ns:
            return 1.0
        begin_ns, end_ns, pace = self._rows[satellite]
        overlap_ns = np.clip(np.minimum(end_ns, to_ns) - np.maximum(begin_ns, from_ns), 0, None)
        return float(1.0 - overlap_ns @ (1.0 - pace) / (to_ns - from_ns))


def _rows_by_satellite(table: pa.Table) -> Iterator[tuple[str, tuple[np.ndarray, np.ndarray, np.ndarray]]]:
    """Of each satellite, when its intervals began and ended, and their paces."""
    names = table.column("satellite").combine_chunks().cast(pa.string()).dictionary_encode()
    codes, end_ns = names.indices.to_numpy(), table.column("t_ns").to_numpy()
    columns = end_ns - table.column("interval_ns").to_numpy(), end_ns, table.column("pace_ratio").to_numpy()
    order = np.argsort(codes, kind="stable")
    for part in np.split(order, np.flatnonzero(np.diff(codes[order])) + 1):
        yield names.dictionary[int(codes[part[0]])].as_py(), tuple(column[part] for column in columns)
