"""From journals to tables: what a run wrote down while it lived becomes Parquet, joined with the plan."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from isl_emu.linkplan.plan import LinkPlan
from isl_emu.parts.finished_run import FinishedRun, Row
from isl_emu.parts.registry import PARTS
from isl_emu.results.tables import CHANGES, INSTANTS, LOAD, OUTSIDE, PAUSES


def write_tables(run: FinishedRun) -> None:
    """Write every table of a run from its journals.

    Those that every run has are empty if their journal was never begun; others are left out then.
    """
    instants, load = run.journal("instants"), run.journal("load")
    run.write("instants", INSTANTS, map(_instant_row, instants.records), instants.lost_lines)
    run.write("load", LOAD, load.records, load.lost_lines)
    write_changes(run.folder.journal / "changes.arrow", run.folder.table("changes"), run.plan)
    lines = {"outside": OUTSIDE, "pauses": PAUSES}
    for part in PARTS:
        lines |= part.lines
    for name, schema in lines.items():
        if run.has_journal(name):
            own = run.journal(name)
            run.write(name, schema, own.records, own.lost_lines)
    for part in PARTS:
        part.conclude(run)


def _instant_row(record: Row) -> Row:
    times = {f"t_{key}": record[key] for key in ("planned_ns", "begun_ns", "done_ns")}
    return {**record, **times, "lateness_ns": max(0, record["done_ns"] - record["planned_ns"])}


def write_changes(source: Path, target: Path, plan: LinkPlan) -> None:
    """Turn the replay's Arrow stream into `changes.parquet`, batch by batch: it may hold millions of rows."""
    schema = CHANGES.with_metadata({**CHANGES.metadata, b"rate_scale": str(plan.rate_scale).encode()})
    with pq.ParquetWriter(target, schema, compression="zstd") as writer:
        for batch in _stream_batches(source):
            writer.write_batch(_named_changes(batch, plan, schema))


def _stream_batches(source: Path) -> Iterator[pa.RecordBatch]:
    """The complete batches of a stream; one that was cut off by a kill ends it."""
    if not source.exists() or source.stat().st_size == 0:
        return
    with source.open("rb") as file:
        try:
            yield from pa.ipc.open_stream(file)
        except (pa.ArrowInvalid, OSError):
            return


def _named_changes(batch: pa.RecordBatch, plan: LinkPlan, schema: pa.Schema) -> pa.RecordBatch:
    """Changes with node names in place of a link's end, and their lateness."""
    columns = {name: batch.column(name).to_numpy(zero_copy_only=False) for name in batch.schema.names}
    a, b = plan.links.a[columns["link"]], plan.links.b[columns["link"]]
    names = pa.array(plan.nodes.names, type=pa.string())
    columns["node"] = pa.DictionaryArray.from_arrays(np.where(columns["end"] == 0, a, b).astype(np.int32), names)
    columns["peer"] = pa.DictionaryArray.from_arrays(np.where(columns["end"] == 0, b, a).astype(np.int32), names)
    columns["lateness_ns"] = np.maximum(columns["t_applied_ns"] - columns["t_planned_ns"], 0)
    arrays = [pa.array(columns[field.name], type=field.type) for field in schema]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
