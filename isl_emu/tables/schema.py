"""What a table of the results is made of: columns, each with its unit and meaning.

The unit and description of a column travel inside the Parquet file, as metadata of its field (keys `unit` and
`description`); `docs/results.md` shows the same texts to users, and a test keeps the two equal.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from isl_emu.errors import ScenarioError
from isl_emu.files import check_regular
from isl_emu.limits import ROWS

RESULTS_FORMAT = "2"  # raised when a column changes its meaning or disappears
LOST_LINES = b"journal_lines_lost"  # schema metadata: lines of the journal that were torn by a kill

TEXT = pa.string()
COUNT = pa.int32()
NS = pa.int64()
RATIO = pa.float64()
REAL = pa.float64()
FLAG = pa.bool_()
TIMES = pa.list_(pa.field("element", pa.int64()))
NAME = pa.dictionary(pa.int32(), pa.string())  # few different values in very many rows
PATH = pa.list_(pa.field("element", pa.string()))  # "element" is what Parquet calls it


def column(name: str, kind: pa.DataType, unit: str, description: str) -> pa.Field:
    """A column of a table; `unit` is empty for what has none."""
    return pa.field(name, kind, metadata={"unit": unit, "description": description})


def schema(*columns: pa.Field) -> pa.Schema:
    """A table with these columns."""
    return pa.schema(columns, metadata={"isl_emu_results_format": RESULTS_FORMAT})


def read_table(path: Path) -> pa.Table:
    """All of a table.

    Raises:
        ScenarioError: it says that it has more rows than the limit.
        OSError, pa.ArrowException: it cannot be read.
    """
    check_regular(path)
    file = pq.ParquetFile(path)  # the file alone: a path with "=" in a folder's name would otherwise add columns
    if excess := ROWS.excess(file.metadata.num_rows):
        raise ScenarioError(f"{path}: says that it {excess}")
    return file.read()
