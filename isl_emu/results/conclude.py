"""The end of a run: journals become tables, the run is judged, and the summary is written.

Here are the tables that every run has, those on the machine and on pauses; each part has its own.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from isl_emu.files import read_json, write_json
from isl_emu.linkplan.plan import LinkPlan
from isl_emu.parts.finished_run import FinishedRun, Row
from isl_emu.parts.registry import PARTS
from isl_emu.results.fidelity import Fidelity, assess
from isl_emu.results.path_changes import PATH_CHANGES, path_changes
from isl_emu.results.path_changes import TABLE as PATH_CHANGES_TABLE
from isl_emu.results.provenance import completed
from isl_emu.results.render import render
from isl_emu.routing.forwarding import RoutePlan
from isl_emu.runs.execution import Execution
from isl_emu.runs.folder import RunFolder
from isl_emu.runs.journal import (
    CHANGES_JOURNAL,
    DROPS_JOURNAL,
    INCIDENTS_JOURNAL,
    INSTANTS_JOURNAL,
    LINKS_JOURNAL,
    LOAD_JOURNAL,
    OUTSIDE_JOURNAL,
    PAUSES_JOURNAL,
    joined,
)
from isl_emu.scenario.model import Scenario
from isl_emu.tables.arrow_streams import stream_batches
from isl_emu.tables.schema import COUNT, FLAG, NAME, NS, RATIO, TEXT, column, schema
from isl_emu.units import NS_PER_S

INSTANTS = schema(
    column("k", COUNT, "", "number of the instant"),
    column("t_planned_ns", NS, "ns", "when its state was due"),
    column("t_begun_ns", NS, "ns", "when the first change was sent to the kernel; never before -3 s"),
    column("t_done_ns", NS, "ns", "when the last change was in force"),
    column("lateness_ns", NS, "ns", "t_done - t_planned; 0 when it was early, as the first one is"),
    column("links", COUNT, "changes", "link ends that were changed"),
    column("routes", COUNT, "changes", "routes that were changed"),
    column("mismatches", COUNT, "", "settings that the kernel did not hold as planned when read back"),
)

CHANGES = schema(
    column("k", COUNT, "", "number of the instant"),
    column("t_planned_ns", NS, "ns", "when the change was due"),
    column("t_applied_ns", NS, "ns", "when the kernel had it"),
    column("lateness_ns", NS, "ns", "t_applied - t_planned; 0 when it was early"),
    column("link", COUNT, "", "number of the link in the plan"),
    column("node", NAME, "", "node at this end of the link; the state is that of sending from here"),
    column("peer", NAME, "", "node at the other end"),
    column("up", FLAG, "", "the link carries packets"),
    column("planned_delay_ns", NS, "ns", "one-way propagation delay of the plan"),
    column("set_delay_ns", NS, "ns", "delay given to the kernel: planned, less what the kernel adds by itself"),
    column("rate_bit_s", NS, "bit/s", "rate given to the kernel: the physical rate times rate_scale"),
    column("queue_byte", COUNT, "bytes", "the most that may wait"),
    column("loss_ratio", RATIO, "ratio", "share of packets that the kernel drops at random; 1 when the link is down"),
    column("corruption_ratio", RATIO, "ratio", "share of packets of which it flips a bit, by a fault"),
    column("duplication_ratio", RATIO, "ratio", "share of packets that it sends twice, by a fault"),
    column("jitter_ns", NS, "ns", "by how much it makes delays longer or shorter at the most, by a fault"),
)

LOAD = schema(
    column("t_ns", NS, "ns", "end of the second that the row describes"),
    column("cpus", COUNT, "CPUs", "CPUs of the kernel that ran the network"),
    column("busy_ratio", RATIO, "ratio", "share of CPU time that was not idle"),
    column("steal_ratio", RATIO, "ratio", "share of CPU time that a hypervisor took"),
    column("pressure_ratio", RATIO, "ratio", "share of time some process waited for a CPU; null if not known"),
    column("wakeup_lateness_ns", NS, "ns", "how late the sampler itself woke up"),
)

OUTSIDE = schema(
    column("utc_ns", NS, "ns", "end of the second that the row describes, UTC"),
    column("guest", COUNT, "", "guest that it is about, from 0"),
    column("guest_busy_ratio", RATIO, "ratio", "share of time for which the guest kernel and what is in it ran"),
    column("guest_waiting_ratio", RATIO, "ratio", "share of time for which it could have run, but others had its CPU"),
    column("steal_ratio", RATIO, "ratio", "share of the machine's CPU time that a hypervisor took"),
    column("pressure_ratio", RATIO, "ratio", "share of time some process there waited for a CPU; null if not known"),
)

PAUSES = schema(
    column("t_ns", NS, "ns", "where the emulated time stood"),
    column("lasted_ns", NS, "ns", "for how long, in the machine's time"),
)

INCIDENTS = schema(
    column("t_ns", NS, "ns", "when it happened"),
    column("t_end_ns", NS, "ns", "when it was put right; null if it was not"),
    column("kind", TEXT, "", "death: something that was to last ended; intervention: somebody changed the network"),
    column("node", TEXT, "", "node in which it happened; null where that is none"),
    column("what", TEXT, "", "what died, or was changed"),
    column("cause", TEXT, "", "why it died, or what was found changed"),
)

DROPS = schema(
    column("node", TEXT, "", "node that sends"),
    column("peer", TEXT, "", "node at the other end of the link"),
    column("down", COUNT, "packets", "dropped because the link was down"),
    column("fault", COUNT, "packets", "dropped because a fault, or somebody by hand, had cut the link"),
    column("lost", COUNT, "packets", "dropped by the planned loss of the link while it was up"),
    column("full", COUNT, "packets", "dropped because the queue was full"),
    column("unclear", COUNT, "packets", "one of these: too many links changed at once to tell"),
)

LINKS = schema(
    column("t_ns", NS, "ns", "when the counters were read"),
    column("node", NAME, "", "node that sends"),
    column("peer", NAME, "", "node at the other end of the link"),
    column("sent_byte", NS, "bytes", "that have crossed the link so far, with 14 bytes of Ethernet for each packet"),
    column("sent_packets", NS, "packets", "that have crossed the link so far"),
    column("dropped_down", NS, "packets", "dropped so far because the link was down"),
    column("dropped_fault", NS, "packets", "dropped so far because a fault, or somebody by hand, had cut the link"),
    column("dropped_lost", NS, "packets", "dropped so far by the planned loss of the link while it was up"),
    column("dropped_full", NS, "packets", "dropped so far because the queue was full"),
    column("dropped_unclear", NS, "packets", "one of these: too many links changed at once to tell"),
    column("backlog_byte", NS, "bytes", "on the link then: in flight, or waiting where the queue is not managed"),
    column("backlog_packets", NS, "packets", "on the link then, in the same way"),
    column("waiting_byte", NS, "bytes", "waiting then in a managed queue; 0 where there is none"),
    column("waiting_packets", NS, "packets", "waiting then in a managed queue; 0 where there is none"),
    column("marked", NS, "packets", "marked (ECN) so far by a managed queue"),
)

TABLES = {
    LINKS_JOURNAL: LINKS,
    INSTANTS_JOURNAL: INSTANTS,
    CHANGES_JOURNAL: CHANGES,
    LOAD_JOURNAL: LOAD,
    OUTSIDE_JOURNAL: OUTSIDE,
    PAUSES_JOURNAL: PAUSES,
    INCIDENTS_JOURNAL: INCIDENTS,
    DROPS_JOURNAL: DROPS,
    PATH_CHANGES_TABLE: PATH_CHANGES,
}


def write_tables(run: FinishedRun) -> None:
    """Write every table of a run from its journals.

    Those that every run has are empty if their journal was never begun; others are left out then.
    """
    instants, load = run.journal(INSTANTS_JOURNAL), run.journal(LOAD_JOURNAL)
    rows = [
        {
            **record,
            **{f"t_{key}": record[key] for key in ("planned_ns", "begun_ns", "done_ns")},
            "lateness_ns": max(0, record["done_ns"] - record["planned_ns"]),
        }
        for record in instants.records
    ]
    run.write(INSTANTS_JOURNAL, INSTANTS, rows, instants.lost_lines)
    until_ns = run.ended_ns + NS_PER_S // 2  # the last packets of a run that is over may be waited for
    seconds = [record for record in load.records if record["t_ns"] <= until_ns]
    run.write(LOAD_JOURNAL, LOAD, seconds, load.lost_lines)
    write_changes(run.folder.journal / f"{CHANGES_JOURNAL}.arrow", run.folder.table(CHANGES_JOURNAL), run.plan)
    write_links(run.folder.journal / f"{LINKS_JOURNAL}.arrow", run.folder.table(LINKS_JOURNAL), run.plan)
    incidents = run.journal(INCIDENTS_JOURNAL)
    if incidents.records:
        rows = sorted(joined(incidents.records), key=order_of(("t_ns", "node", "what"), run.plan))
        run.write(INCIDENTS_JOURNAL, INCIDENTS, rows, incidents.lost_lines)
    lines = {OUTSIDE_JOURNAL: OUTSIDE, PAUSES_JOURNAL: PAUSES, DROPS_JOURNAL: DROPS}
    orders = {name: columns for part in PARTS for name, columns in part.orders.items()}
    for part in PARTS:
        lines |= part.lines
    for name, columns in lines.items():
        if run.has_journal(name):
            own = run.journal(name)
            run.write(name, columns, sorted(own.records, key=order_of(orders.get(name, ()), run.plan)), own.lost_lines)
    for part in PARTS:
        part.conclude(run)
    run.write(PATH_CHANGES_TABLE, PATH_CHANGES, path_changes(run))


NODES = "node", "satellite"  # columns with names of nodes, of what is put in order


def order_of(columns: Sequence[str], plan: LinkPlan) -> Callable[[Row], tuple[Any, ...]]:
    """What to sort rows by: by these columns, one after another, nodes in the plan's order, and null before all."""
    places = {name: place for place, name in enumerate(plan.nodes.names)}

    def order(row: Row) -> tuple[Any, ...]:
        values = ((row[column], column) for column in columns)
        return tuple((value is not None, places.get(value) if of in NODES else value) for value, of in values)

    return order


def write_changes(source: Path, target: Path, plan: LinkPlan) -> None:
    """Turn the replay's Arrow stream into `changes.parquet`, batch by batch: it may hold millions of rows."""
    schema = CHANGES.with_metadata({**CHANGES.metadata, b"rate_scale": str(plan.rate_scale).encode()})
    with pq.ParquetWriter(target, schema, compression="zstd") as writer:
        for batch in stream_batches(source):
            columns = {name: batch.column(name).to_numpy(zero_copy_only=False) for name in batch.schema.names}
            columns |= _names_of_ends(columns["link"], columns["end"], plan)
            columns["lateness_ns"] = np.maximum(columns["t_applied_ns"] - columns["t_planned_ns"], 0)
            arrays = [pa.array(columns[field.name], type=field.type) for field in schema]
            writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))


def write_links(source: Path, target: Path, plan: LinkPlan) -> None:
    """Turn the sampled counters of link ends into `links.parquet`, batch by batch."""
    with pq.ParquetWriter(target, LINKS, compression="zstd") as writer:
        for batch in stream_batches(source):
            found = {name: batch.column(name).to_numpy(zero_copy_only=False) for name in batch.schema.names}
            found |= _names_of_ends(found["link"], found["end"], plan)
            columns = [found[field.name.removeprefix("dropped_")] for field in LINKS]
            arrays = [pa.array(one, type=field.type) for one, field in zip(columns, LINKS, strict=True)]
            writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=LINKS))


def _names_of_ends(link: np.ndarray, end: np.ndarray, plan: LinkPlan) -> dict[str, pa.DictionaryArray]:
    """The node at each of some link ends, and its peer."""
    names, at_a = pa.array(plan.nodes.names, type=pa.string()), end == 0
    a, b = plan.links.a[link], plan.links.b[link]
    return {
        "node": pa.DictionaryArray.from_arrays(np.where(at_a, a, b).astype(np.int32), names),
        "peer": pa.DictionaryArray.from_arrays(np.where(at_a, b, a).astype(np.int32), names),
    }


def conclude(
    folder: RunFolder, scenario: Scenario, plan: LinkPlan, routes: RoutePlan, failure: str | None = None
) -> Fidelity:
    """Write the tables, fidelity.json and summary.txt of a run folder, and complete its provenance.json.

    The journal is removed when the run came to its end without an error; what processes printed goes to `logs` before.

    Args:
        failure: why the run did not come to its end, as far as the caller knows; what the live part wrote down about
            its end goes before it.

    Raises:
        ScenarioError: there are links in the folder.
    """
    folder.check_plain()
    execution = Execution.read(folder.execution)
    if failure and not (execution and execution.error):
        execution = replace(execution or Execution(), error=failure)
    run = FinishedRun(folder, scenario, plan, routes, execution)
    write_tables(run)
    provenance = completed(read_json(folder.provenance) or {}, execution)
    write_json(folder.provenance, provenance)
    fidelity = assess(run)
    folder.fidelity.write_text(fidelity.to_json())
    folder.summary.write_text(render(run, fidelity, provenance))
    if execution and not execution.error:
        # what servers and other processes of the run have printed stays
        for log in sorted(folder.journal.glob("*.log")):
            if log.stat().st_size:
                folder.logs.mkdir(exist_ok=True)
                log.replace(folder.logs / log.name)
        shutil.rmtree(folder.journal)
    return fidelity
