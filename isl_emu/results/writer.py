"""From journals to tables: what a run wrote down while it lived becomes Parquet, joined with the plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from isl_emu.linkplan.plan import LinkPlan
from isl_emu.parts.questions.concurrency import Answering, service_span
from isl_emu.parts.questions.rows import Row, outcome, probe_row, request_row, unrecorded_requests
from isl_emu.parts.questions.streams import attempt_row
from isl_emu.parts.split.rows import split_rows
from isl_emu.parts.uplink.rows import delivery_rows, transfer_rows
from isl_emu.results.provenance import read_json
from isl_emu.routing.forwarding import RoutePlan
from isl_emu.routing.paths import PathFinder
from isl_emu.runs.folder import RunFolder
from isl_emu.runs.journal import JournalContent, read_journal
from isl_emu.scenario.model import Scenario
from isl_emu.tables.planned_paths import PlannedPaths
from isl_emu.tables.records import (
    ATTEMPTS,
    CHANGES,
    DELIVERIES,
    INSTANTS,
    JOURNALLED,
    LOAD,
    LOST_LINES,
    PROBES,
    REQUESTS,
    SPLIT,
    TRANSFERS,
)


def write_tables(folder: RunFolder, scenario: Scenario, plan: LinkPlan, routes: RoutePlan) -> None:
    """Write every table of a run folder from its journals; a journal that was never begun gives an empty table."""
    journal = folder.journal
    instants = read_journal(journal / "instants.jsonl")
    done_ns = {record["k"]: record["done_ns"] for record in instants.records}
    paths = PlannedPaths(plan, PathFinder(plan, routes), done_ns)
    probes, load = read_journal(journal / "probes.jsonl"), read_journal(journal / "load.jsonl")
    _write(folder.table("instants"), INSTANTS, map(_instant_row, instants.records), instants.lost_lines)
    probe_rows = [probe_row(record, paths) for record in probes.records]
    _write(folder.table("probes"), PROBES, probe_rows, probes.lost_lines)
    _write_requests(folder, scenario, plan, paths)
    _write(folder.table("load"), LOAD, load.records, load.lost_lines)
    for name, schema in JOURNALLED.items():
        if (journal / f"{name}.jsonl").exists():
            own = read_journal(journal / f"{name}.jsonl")
            _write(folder.table(name), schema, own.records, own.lost_lines)
    if (journal / "transfer_plan.json").exists():
        attempts = read_journal(journal / "transfers.jsonl")
        transfers = transfer_rows(attempts.records, paths)
        _write(folder.table("transfers"), TRANSFERS, transfers, attempts.lost_lines)
        _write(folder.table("deliveries"), DELIVERIES, delivery_rows(journal, transfers, paths), lost_lines=0)
    for workload in scenario.workload:
        _write_own(folder.table(workload.name), read_journal(journal / f"{workload.name}.jsonl"))
    if scenario.split:
        _write(folder.table("split"), SPLIT, split_rows(folder, scenario, paths), lost_lines=0)
    write_changes(journal / "changes.arrow", folder.table("changes"), plan)


def _instant_row(record: Row) -> Row:
    times = {f"t_{key}": record[key] for key in ("planned_ns", "begun_ns", "done_ns")}
    return {**record, **times, "lateness_ns": max(0, record["done_ns"] - record["planned_ns"])}


def _write_requests(folder: RunFolder, scenario: Scenario, plan: LinkPlan, paths: PlannedPaths) -> None:
    """The tables of questions and of the attempts to have them answered."""
    journal, ended_ns = folder.journal, (read_json(folder.execution) or {}).get("ended_ns", plan.grid.duration_ns)
    attempts, requests = (read_journal(journal / f"{name}.jsonl") for name in ("attempts", "requests"))
    planned = read_journal(journal / "planned_requests.jsonl")
    attempt_rows = [attempt_row({**record, "outcome": outcome(record, paths)}, paths) for record in attempts.records]
    _write(folder.table("attempts"), ATTEMPTS, attempt_rows, attempts.lost_lines)
    rows = _request_rows(requests.records, planned.records, paths, scenario, ended_ns)
    _add_laser_bytes(rows, attempt_rows)
    _write(folder.table("requests"), REQUESTS, rows, requests.lost_lines)


def _request_rows(
    recorded: Sequence[Row], planned: Sequence[Row], paths: PlannedPaths, scenario: Scenario, ended_ns: int
) -> list[Row]:
    """One row for each request that was due before the end of the run."""
    if scenario.questions is None:
        return []
    records = [*recorded, *unrecorded_requests(planned, recorded)]
    records = [record for record in records if record["t_due_ns"] < ended_ns]
    answering = Answering(records)
    records.sort(key=lambda record: record["id"])
    rows = [request_row(record, paths, scenario.questions) for record in records]
    for row in rows:
        span = service_span(row)
        row["server"] = _server(row["satellite"], scenario)
        row["satellites_answering"] = answering.mean_count(*span) if span else None
    return rows


def _server(satellite: str | None, scenario: Scenario) -> str | None:
    if satellite is None:
        return None
    group = scenario.compute_of(satellite)
    return "split" if group is None else group.server


def _add_laser_bytes(requests: Iterable[Row], attempts: Iterable[Row]) -> None:
    """What all attempts of each request put on lasers."""
    total: Counter[int] = Counter()
    for attempt in attempts:
        total[attempt["id"]] += attempt["laser_byte"]
    for request in requests:
        request["laser_byte"] = total.get(request["id"])


def _write(path: Path, schema: pa.Schema, rows: Iterable[Row], lost_lines: int) -> None:
    schema = schema.with_metadata({**schema.metadata, LOST_LINES: str(lost_lines).encode()})
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), path, compression="zstd")


def _write_own(path: Path, own: JournalContent) -> None:
    """A table of a user's workload, with the columns that its rows have; none if it recorded nothing."""
    if own.records:
        columns = list(dict.fromkeys(column for record in own.records for column in record))
        table = pa.table({column: pa.array([record.get(column) for record in own.records]) for column in columns})
        pq.write_table(table.replace_schema_metadata({LOST_LINES: str(own.lost_lines)}), path, compression="zstd")


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
