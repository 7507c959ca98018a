"""What several guests have written down of one run becomes what one guest would have written.

Each part of a run has journals of its own; here they are merged into those of the first, in an order from which the
same tables follow to the bit. How a part's own journals go together it says itself (`Part.merges`).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from isl_emu.network.fault_drops import JOURNAL as FAULT_DROPS_JOURNAL
from isl_emu.parts.registry import PARTS
from isl_emu.runs.execution import INTERRUPTED_BY_USER, Execution
from isl_emu.runs.folder import RunFolder
from isl_emu.runs.journal import (
    CHANGES_JOURNAL,
    DROPS_JOURNAL,
    INCIDENTS_JOURNAL,
    INSTANTS_JOURNAL,
    LINKS_JOURNAL,
    LOAD_JOURNAL,
    read_journal,
    rewrite_journal,
)
from isl_emu.runs.merging import Records, merged_rows
from isl_emu.tables.arrow_streams import stream_batches


def instants(parts: Sequence[Records]) -> Records:
    """An instant begins with the first part and is done with the last; what was changed is counted together."""
    how: dict[str, Callable[[Sequence[Any]], Any]] = {
        "begun_ns": min,
        "done_ns": max,
        "links": sum,
        "routes": sum,
        "mismatches": sum,
    }
    return merged_rows(parts, "k", how)


def load(parts: Sequence[Records]) -> Records:
    """Of each second the busiest kernel."""
    names = "cpus", "busy_ratio", "steal_ratio", "pressure_ratio", "wakeup_lateness_ns"
    return merged_rows(parts, "t_ns", dict.fromkeys(names, _most))


def _most(values: Sequence[Any]) -> Any:
    return max((value for value in values if value is not None), default=None)


def drops(parts: Sequence[Records]) -> Records:
    """Each end is in one part."""
    return sorted((record for part in parts for record in part), key=lambda record: record["end"])


def fault_drops(parts: Sequence[Records]) -> Records:
    """The links of a fault are in all parts."""
    return merged_rows(parts, "event", {"packets": sum})


def incidents(parts: Sequence[Records]) -> Records:
    """Those that go on in a later line are known by the part and their number there."""
    return [
        {**record, **({"id": f"{number} {record['id']}"} if "id" in record else {})}
        for number, part in enumerate(parts)
        for record in part
    ]


def _changes_order(table: pa.Table) -> tuple[np.ndarray, ...]:
    return _end(table), ~_column(table, "up"), _column(table, "t_applied_ns"), _column(table, "k")


def _links_order(table: pa.Table) -> tuple[np.ndarray, ...]:
    return _end(table), _column(table, "t_ns")


ORDERS = {CHANGES_JOURNAL: _changes_order, LINKS_JOURNAL: _links_order}  # of rows, as one replay writes them
MERGES: Mapping[str, Callable[[Sequence[Records]], Records]] = {
    INSTANTS_JOURNAL: instants,
    LOAD_JOURNAL: load,
    DROPS_JOURNAL: drops,
    FAULT_DROPS_JOURNAL: fault_drops,
    INCIDENTS_JOURNAL: incidents,
}


def gather(folder: RunFolder, parts: int) -> None:
    """Merge the journals of a run's parts into that of the first, and remove the others.

    Of a journal that nobody says how to merge, the lines of one part come after those of another.
    """
    others = [RunFolder(folder.path, number) for number in range(1, parts)]
    for part in PARTS:
        part.gather((folder, *others))
    merges = {name: merge for part in PARTS for name, merge in part.merges.items()} | dict(MERGES)
    folders = [folder.journal, *(other.journal for other in others)]
    for name in sorted({path.stem for one in folders for path in one.glob("*.jsonl")}):
        paths = [one / f"{name}.jsonl" for one in folders]
        there = [path for path in paths if path.exists()]
        if len({path.stat().st_ino for path in there}) == 1 and len(there) > 1:
            continue  # it was prepared for all of them
        if name in merges:
            rewrite_journal(paths[0], merges[name]([read_journal(path).records for path in paths]))
        else:
            with paths[0].open("ab") as file:
                for path in paths[1:]:
                    file.write(path.read_bytes() if path.exists() else b"")
    for name, order in ORDERS.items():
        merge_streams([one / f"{name}.arrow" for one in folders], order)
    merged_execution([Execution.read(one.execution) for one in (folder, *others)]).write(folder.execution)
    for number, other in enumerate(folders[1:], 1):
        for log in other.glob("*.log"):
            shutil.copyfile(log, folder.journal / f"{log.stem}.{number}.log")
        shutil.rmtree(other)
    kept = folder.files_of("any").parent
    for path in [*kept.glob("*"), kept]:  # what comes of other machines also has folders that were removed there
        with suppress(OSError):
            path.rmdir()


def merge_streams(paths: Sequence[Path], order: Callable[[pa.Table], tuple[np.ndarray, ...]]) -> None:
    """Merge Arrow streams into the first, with a batch for all that was done at once, as one replay writes them.

    Args:
        order: of a table's rows, keys for `numpy.lexsort`: the last is the first to go by, the first is of the end.
    """
    batches = [batch for path in paths for batch in stream_batches(path)]
    if not batches:
        return
    table = pa.Table.from_batches(batches)
    table = table.take(np.lexsort(order(table)))
    begins = np.logical_or.reduce([np.diff(key.astype(np.int64), prepend=-1) != 0 for key in order(table)[1:]])
    begins[0] = True
    places = np.flatnonzero(begins).tolist()
    new = paths[0].with_suffix(".merged")
    with new.open("wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
        for place, end in zip(places, [*places[1:], table.num_rows]):
            stream.write_table(table.slice(place, end - place).combine_chunks())
    new.replace(paths[0])


def _column(table: pa.Table, name: str) -> np.ndarray:
    found: np.ndarray = table[name].to_numpy()
    return found


def _end(table: pa.Table) -> np.ndarray:
    end: np.ndarray = 2 * _column(table, "link").astype(np.int64) + _column(table, "end")
    return end


SUMS = "dropped_packets", "marked_packets", "carried_packets"


def merged_execution(parts: Sequence[Execution | None]) -> Execution:
    """What the parts have written down about themselves, as one: the first one's, with what is counted together.

    It has failed if one of them has; one that wrote nothing down was killed before it could. Of calibrations the one
    counts that has left the most.
    """
    known = [part for part in parts if part is not None]
    if not known:
        return Execution(error="its guests were killed before they could write anything down")
    found = {item.name: getattr(known[0], item.name) for item in fields(Execution)}
    errors = [part.error for part in known if part.error and part.error != INTERRUPTED_BY_USER]
    if len(known) < len(parts):
        errors.append("one of its guests was killed before it could write anything down")
    errors += [part.error for part in known if part.error]  # who fails interrupts the others
    found["error"] = next(iter(errors), None)
    least_true = max(known, key=lambda part: abs(part.residue_ns or 0))
    for name in ("bias_ns", "residue_ns", "calibration"):
        found[name] = getattr(least_true, name)
    for name in SUMS:
        values = [getattr(part, name) for part in known]
        found[name] = None if None in values else sum(values)
    if all(part.mismatches is not None for part in known):
        found["mismatches"] = [one for part in known for one in part.mismatches or ()]
    for name in {name for part in known for name in part.phases_s}:
        found["phases_s"] = {**found["phases_s"], name: max(part.phases_s.get(name, 0.0) for part in known)}
    for number, part in enumerate(known):
        for node, lost in part.lost_files.items():
            key = node if node not in found["lost_files"] or number == 0 else f"{node} of guest {number}"
            found["lost_files"] = {**found["lost_files"], key: lost}
        found["congestion_control"] = found["congestion_control"] | part.congestion_control
    return Execution(**found)
