"""Arrow streams of a live run, read as far as they are whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa


def stream_batches(source: Path) -> Iterator[pa.RecordBatch]:
    """The complete batches of a stream; one that was cut off by a kill ends it."""
    if not source.exists() or source.stat().st_size == 0:
        return
    with source.open("rb") as file:
        try:
            yield from pa.ipc.open_stream(file)
        except (pa.ArrowInvalid, OSError):
            return
