"""Tables of measurements in CSV, perhaps packed by gzip: columns of numbers and of text."""

from __future__ import annotations

import gzip
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv

from isl_emu.errors import ScenarioError
from isl_emu.files import read_whole
from isl_emu.limits import MIB

GZIP = b"\x1f\x8b"  # how a packed file begins, RFC 1952
LAST_UNIX_S = 1e11  # in the year 5138; what is later is counted in milliseconds or less


def read_columns(path: Path, numbers: Sequence[str], texts: Sequence[str] = ()) -> tuple[np.ndarray, ...]:
    """Columns of a table: those of numbers, float64 with nan where nothing is written, then those of text.

    Raises:
        ScenarioError: the file cannot be read, has no such column or no rows, or something else than numbers in one.
    """
    try:
        content = read_whole(path)
        if content[:2] == GZIP:
            content = gzip.GzipFile(fileobj=io.BytesIO(content)).read((MIB.most << 20) + 1)
        if len(content) > MIB.most << 20:
            raise ScenarioError(
                f"{path}: has more than {MIB.most} MiB unpacked, but that is the most; give a part of it, or set "
                f"{MIB.variable} to allow more"
            )
        table = pyarrow.csv.read_csv(io.BytesIO(content))
    except (OSError, EOFError, pa.ArrowException) as error:
        why = str(error).splitlines()[0]
        raise ScenarioError(f"{path}: cannot be read ({why}), but is a table in CSV; fetch it again") from None
    if missing := [column for column in (*numbers, *texts) if column not in table.column_names]:
        raise ScenarioError(
            f"{path}: has the columns {', '.join(table.column_names[:8])}, but {', '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} needed; rename or add what is missing"
        )
    if not table.num_rows:
        raise ScenarioError(f"{path}: has no rows, but there is something to compare in it; fetch it again")
    found = [_numbers(path, column, table[column]) for column in numbers]
    return (*found, *(np.array(table[column].to_pylist(), dtype=object) for column in texts))


def unix_seconds(path: Path, column: str, unix_s: np.ndarray) -> np.ndarray:
    """The same column, where it can be seconds since 1970, one in each row.

    Raises:
        ScenarioError: it cannot.
    """
    wrong = ~((unix_s >= 0.0) & (unix_s < LAST_UNIX_S))
    if wrong.any():
        found = "empty" if np.isnan(unix_s[wrong][0]) else f"{unix_s[wrong][0]:.12g}"
        raise ScenarioError(
            f"{path}: {column} is {found} in a row, but it is Unix time in seconds; correct or convert it"
        )
    return unix_s


def _numbers(path: Path, name: str, column: Any) -> np.ndarray:
    try:
        return np.asarray(column.cast(pa.float64()).to_numpy(), dtype=np.float64)
    except pa.ArrowException:
        found = next(text for text in map(str, column.drop_null().to_pylist()) if not _is_number(text))
        raise ScenarioError(
            f"{path}: {name} is {found!r} in a row, but it holds numbers, and nothing where there is none; correct it"
        ) from None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
