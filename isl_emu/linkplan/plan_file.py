"""The link plan as one Parquet file.

The rows are useful on their own to pandas, DuckDB and the like: one for each link that is up at each instant, with
node names. What else the plan holds is JSON in the schema's metadata, under the key ``isl_emu.plan``. Equal plans
written by equal versions of Arrow give equal files, byte for byte.

| column | type | meaning |
|---|---|---|
| t_ns | int64 | instant, since the start of the run |
| link | int32 | index of the link |
| a, b | string | its ends; b is the station of a ground link |
| kind | string | intra-plane, inter-plane, inter-shell, ground or terrestrial |
| delay_ns | int64 | one way |
| rate_ab_bit_s, rate_ba_bit_s | int64 | physical rate from a to b, and from b to a |
| loss_ratio | float64 | share of the packets that are lost, in either direction |

The description says under ``time_step`` what the spacing of the instants does to the plan: the largest change of a
delay from one to the next, and how many contacts and gaps are expected to have been missed (see `step_check`).

The changes of the links' states are JSON in the metadata too, under ``isl_emu.events``: the lists ``k`` (instant),
``link`` (index) and ``state`` (place in the list ``states``). Every link is idle before its first.

Of a plan with faults the rows and the states are those without them, so that all of it can be had again. The faults are
JSON in the metadata under ``isl_emu.faults``: what each does, and the lists of its events (`fault_events.Faults`).

A plan of more than 16 million rows is read in parts, each when it is needed and none of them to open it. So its file
says under ``isl_emu.groups`` how many rows each instant has (``rows_at``), and of each column that is a number the
SHA-256 of its plain bytes in each group of rows (``sha256``); and under ``described`` that of the other values above.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from isl_emu.errors import ScenarioError
from isl_emu.files import check_regular, why_unread
from isl_emu.limits import INSTANTS, PLAN_ROWS, size_text
from isl_emu.linkplan.fault_events import FAULT_COLUMNS, TERM_NAMES, TERMS, Faults, no_faults
from isl_emu.linkplan.faults import with_faults
from isl_emu.linkplan.plan import AQM, AQM_NAMES, Events, LinkKind, LinkPlan, Links, LinkState, Nodes
from isl_emu.linkplan.rows import ROWS_HELD, BlockedColumn, Column
from isl_emu.linkplan.step_check import StepCheck, check_step
from isl_emu.scenario.constellation import ROW_BYTE
from isl_emu.spill import Spill
from isl_emu.timebase import TimeGrid

FORMAT = 4
ROWS_OF_GROUP = 1 << 20  # that are in memory together when a file is written or read; Arrow's own number
COLUMNS_KEPT = 30  # of groups of rows, of a plan that is read in parts: 240 MB
FORMAT_WITH_FAULTS = 5
METADATA_KEY = b"isl_emu.plan"
EVENTS_KEY = b"isl_emu.events"
FAULTS_KEY = b"isl_emu.faults"
GROUPS_KEY = b"isl_emu.groups"
KIND_NAMES = [kind.name.lower().replace("_", "-") for kind in LinkKind]
STATE_NAMES = [state.name.lower() for state in LinkState]
_NAME = pa.dictionary(pa.int32(), pa.string())
SCHEMA = pa.schema(
    [
        pa.field("t_ns", pa.int64(), nullable=False),
        pa.field("link", pa.int32(), nullable=False),
        pa.field("a", _NAME, nullable=False),
        pa.field("b", _NAME, nullable=False),
        pa.field("kind", _NAME, nullable=False),
        pa.field("delay_ns", pa.int64(), nullable=False),
        pa.field("rate_ab_bit_s", pa.int64(), nullable=False),
        pa.field("rate_ba_bit_s", pa.int64(), nullable=False),
        pa.field("loss_ratio", pa.float64(), nullable=False),
    ]
)


NUMBERS = tuple(field.name for field in SCHEMA if field.type != _NAME and field.name != "t_ns")
Told = Callable[[float, str], object]
"""Is told how much is done, 0 to 1, and in words."""


def write_plan(
    plan: LinkPlan, path: Path, told: Told = lambda done, detail: None, check: StepCheck | None = None
) -> None:
    """Write `plan` to `path`, one group of rows after the other.

    Args:
        plan: with its faults, if there are any.
        path: of the file.
        told: is told how much is written.
        check: of `plan` (see `check_step`), where it was made already.
    """
    description, whole, plan = _description(plan, check or check_step(plan)), plan, plan.sky
    metadata = {METADATA_KEY: _json(description), EVENTS_KEY: _json(_events(plan))}
    if whole.faults.names:
        metadata[FAULTS_KEY] = _json(_faults(whole.faults))
    schema, count, sha256 = SCHEMA.with_metadata(metadata), len(plan.row_link), {name: list[str]() for name in NUMBERS}
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for first in range(0, max(count, 1), ROWS_OF_GROUP):
            table = pa.Table.from_arrays(_columns(plan, slice(first, first + ROWS_OF_GROUP)), schema=schema)
            writer.write_table(table, row_group_size=ROWS_OF_GROUP)
            told(min(first + ROWS_OF_GROUP, count) / max(count, 1), f"{count:,} rows")
            if count > ROWS_HELD:
                for name, found in sha256.items():
                    found.append(_sha256(table.column(name).to_numpy()))
        if count > ROWS_HELD:
            groups = {
                "rows_at": np.diff(plan.row_start).tolist(),
                "sha256": sha256,
                "described": _described_as(metadata),
            }
            writer.add_key_value_metadata({GROUPS_KEY: _json(groups)})


def _sha256(values: np.ndarray) -> str:
    plain: Any = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    return hashlib.sha256(memoryview(plain).cast("B")).hexdigest()


def _described_as(metadata: Mapping[bytes, bytes]) -> str:
    """The SHA-256 of what the metadata says besides the rows."""
    told = (metadata.get(key, b"") for key in (METADATA_KEY, EVENTS_KEY, FAULTS_KEY))
    return hashlib.sha256(b"\0".join(told)).hexdigest()


def _columns(plan: LinkPlan, rows: slice) -> list[pa.Array]:
    """Some of the rows as the file has them."""
    link = plan.row_link[rows]
    k = np.searchsorted(plan.row_start, np.arange(rows.start, rows.start + len(link)), side="right") - 1
    return [
        pa.array(plan.grid.offsets_ns[k]),
        pa.array(link),
        _named(plan.links.a[link], plan.nodes.names),
        _named(plan.links.b[link], plan.nodes.names),
        _named(plan.links.kind[link], KIND_NAMES),
        pa.array(plan.row_delay_ns[rows]),
        pa.array(plan.row_rate_ab_bit_s[rows]),
        pa.array(plan.row_rate_ba_bit_s[rows]),
        pa.array(plan.row_loss_ratio[rows]),
    ]


def read_plan(path: Path) -> LinkPlan:
    """The plan that `write_plan` wrote to `path`; of a long one the rows stay there, and are read when they are needed.

    Raises:
        ScenarioError: there is no file, it is not a link plan of this format, or it was altered; of a long one that may
            show only where its rows are read.
    """
    with _readable(path):
        file = _opened(path)
        schema = file.schema_arrow
    description = _described(schema, path)
    if schema.remove_metadata() != SCHEMA:
        raise _unusable(path, f"its columns are {schema.names}", f"a link plan has {SCHEMA.names} of fixed types")
    stored = file.metadata.metadata
    with _readable(path):
        held = _read_rows(file) if GROUPS_KEY not in stored else {}
    try:
        grid = _grid(description["grid"], path)
        if held:
            columns: Mapping[str, Column] = held
            row_start = np.searchsorted(held["t_ns"], np.arange(grid.count + 1) * grid.step_ns).astype(np.int64)
        else:
            groups = json.loads(stored[GROUPS_KEY])
            if groups["described"] != _described_as(stored):
                raise _altered(path)
            columns = _StoredRows(file, path, groups["sha256"]).columns
            row_start = np.cumsum([0, *groups["rows_at"]])
            if len(row_start) != grid.count + 1 or row_start[-1] != file.metadata.num_rows:
                raise ValueError(f"rows_at has {len(row_start) - 1} instants")
        plan = _plan(grid, row_start, columns, description, json.loads(schema.metadata[EVENTS_KEY]))
        if description["format"] == FORMAT_WITH_FAULTS:
            plan = with_faults(plan, _read_faults(json.loads(schema.metadata[FAULTS_KEY])))
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
        raise _unusable(
            path, f"its description is broken ({repr(error)[:80]})", "it describes nodes, links and grid"
        ) from error
    if not held:
        return plan.with_digest(description["digest"])
    if plan.digest() != description.get("digest"):
        raise _altered(path)
    return plan


class _StoredRows:
    """The rows of a plan that stay in its file.

    Args:
        file: that is open.
        path: of the file.
        sha256: of each column in each group of rows.
    """

    def __init__(self, file: pq.ParquetFile, path: Path, sha256: Mapping[str, list[str]]):
        self._file, self._path, self._sha256 = file, path, sha256
        sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        fetch, start = lru_cache(COLUMNS_KEPT)(self._fetched), np.cumsum([0, *sizes])
        self.columns = {
            name: BlockedColumn(start, np.dtype(SCHEMA.field(name).type.to_pandas_dtype()), partial(fetch, name))
            for name in NUMBERS
        }

    def _fetched(self, name: str, group: int) -> np.ndarray:
        """A column of a group of rows."""
        with _readable(self._path):
            values: np.ndarray = self._file.read_row_group(group, columns=[name]).column(name).to_numpy()
        if _sha256(values) != self._sha256[name][group]:
            raise _altered(self._path)
        values.setflags(write=False)
        return values


def _altered(path: Path) -> ScenarioError:
    return _unusable(path, "its content differs from its digest", "a link plan is never edited")


def _unusable(path: Path, found: str, rule: str) -> ScenarioError:
    return ScenarioError(f"{path}: {found}, but {rule}; make the plan again from its scenario")


def _named(index: np.ndarray, names: list[str] | tuple[str, ...]) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(index.astype(np.int32)), pa.array(names, pa.string()))


def _description(plan: LinkPlan, check: StepCheck) -> dict[str, Any]:
    """All of a plan but its rows; what the step does to it is for its readers, and nothing reads that back."""
    seen = {
        name: {"count": part.count, "shortest_ns": part.shortest_ns, "once": part.once, "expected_missed": part.missed}
        for name, part in (("contacts", check.contacts), ("gaps", check.gaps))
    }
    return {
        "format": FORMAT_WITH_FAULTS if plan.faults.names else FORMAT,
        "digest": plan.digest(),
        "grid": {"start": plan.grid.start.isoformat(), "step_ns": plan.grid.step_ns, "count": plan.grid.count},
        "nodes": {"names": list(plan.nodes.names), "kind": plan.nodes.kind.tolist()},
        "links": {
            "a": plan.links.a.tolist(),
            "b": plan.links.b.tolist(),
            "kind": plan.links.kind.tolist(),
            "queue_ns": plan.links.queue_ns.tolist(),
            "aqm": {name: plan.links.aqm[name].tolist() for name in AQM_NAMES},
            "mtu_byte": plan.links.mtu_byte.tolist(),
        },
        "rate_scale": plan.rate_scale,
        "scenario": plan.scenario_toml,
        "time_step": {"delay_change_max_ns": check.delay_change_max_ns, **seen, "warnings": list(check.warnings)},
    }


def _events(plan: LinkPlan) -> dict[str, Any]:
    events = plan.events
    columns = {"k": events.k.tolist(), "link": events.link.tolist(), "state": events.state.tolist()}
    return {"states": STATE_NAMES[: LinkState.FAULT], **columns}  # a fault's own state is of no plan without any


def _faults(faults: Faults) -> dict[str, Any]:
    return {
        "names": list(faults.names),
        "effects": list(faults.effects),
        "terms": {name: faults.terms[name].tolist() for name in TERM_NAMES},
        **{name: getattr(faults, name).tolist() for name in FAULT_COLUMNS},
    }


def _read_faults(told: dict[str, Any]) -> Faults:
    terms = np.empty(len(told["names"]), TERMS)
    for name in TERM_NAMES:
        terms[name] = told["terms"][name]
    dtypes = {name: getattr(no_faults(), name).dtype for name in FAULT_COLUMNS}
    columns = {name: np.array(told[name], dtype) for name, dtype in dtypes.items()}
    return Faults(names=tuple(told["names"]), effects=tuple(told["effects"]), terms=terms, **columns)


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Say what is wrong with a file that cannot be read."""
    try:
        yield
    except (OSError, MemoryError) as error:
        raise ScenarioError(
            f"{path}: cannot be read ({why_unread(error)}), but a plan is a file that `isl-emu plan` wrote; name one"
        ) from error
    except pa.ArrowException as error:
        raise _unusable(path, f"it is not readable as Parquet ({error})", "a link plan is a Parquet file") from error


def _opened(path: Path) -> pq.ParquetFile:
    check_regular(path)
    # the file alone: a path with "=" in a folder's name would otherwise add columns
    file = pq.ParquetFile(path)
    if excess := PLAN_ROWS.excess(file.metadata.num_rows, size_text(file.metadata.num_rows * ROW_BYTE)):
        raise ScenarioError(f"{path}: says that it {excess}")
    return file


def _read_rows(file: pq.ParquetFile) -> dict[str, np.ndarray]:
    """The columns that are numbers, read one group of rows after the other."""
    spill, count = Spill(), file.metadata.num_rows
    columns = {field.name: spill.empty(count, field.type.to_pandas_dtype()) for field in SCHEMA if field.type != _NAME}
    first = 0
    for group in range(file.num_row_groups):
        table = file.read_row_group(group, columns=list(columns))
        for name, column in columns.items():
            column[first : first + len(table)] = table.column(name)
        first += len(table)
    return columns


def _described(schema: pa.Schema, path: Path) -> dict[str, Any]:
    """The description in the metadata, once its format is known to be ours."""
    text = (schema.metadata or {}).get(METADATA_KEY)
    if text is None:
        raise _unusable(path, f"it has no {METADATA_KEY.decode()} in its metadata", "a link plan has")
    try:
        description: dict[str, Any] = json.loads(text)
        found = description["format"]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise _unusable(path, f"its description is not readable ({repr(error)[:80]})", "it is JSON") from error
    if found not in (FORMAT, FORMAT_WITH_FAULTS):
        raise _unusable(
            path, f"its format is {found!r}", f"this isl-emu reads formats {FORMAT} and {FORMAT_WITH_FAULTS}"
        )
    return description


def _grid(grid: dict[str, Any], path: Path) -> TimeGrid:
    """The instants of a plan; KeyError, TypeError or ValueError where they cannot be."""
    for key in ("step_ns", "count"):
        if type(grid[key]) is not int or not 0 < grid[key] < 2**62:
            raise ValueError(f"{key} is {grid[key]!r}")
    if excess := INSTANTS.excess(grid["count"]):
        raise ScenarioError(f"{path}: says that it {excess}")
    if grid["count"] * grid["step_ns"] >= 2**62:
        raise ValueError(f"count x step_ns is {grid['count'] * grid['step_ns']}")
    return TimeGrid(datetime.fromisoformat(grid["start"]), grid["step_ns"], grid["count"])


def _plan(
    grid: TimeGrid,
    row_start: np.ndarray,
    columns: Mapping[str, Column],
    description: dict[str, Any],
    events: dict[str, Any],
) -> LinkPlan:
    """A plan of its parts; KeyError, TypeError or ValueError where they do not fit together."""
    nodes, links = description["nodes"], description["links"]
    return LinkPlan(
        grid=grid,
        nodes=Nodes(tuple(nodes["names"]), np.array(nodes["kind"], dtype=np.uint8)),
        links=Links(
            np.array(links["a"], dtype=np.int32),
            np.array(links["b"], dtype=np.int32),
            np.array(links["kind"], dtype=np.uint8),
            np.array(links["queue_ns"], dtype=np.int64),
            _aqm(links["aqm"], len(links["a"])),
            np.array(links["mtu_byte"], dtype=np.int32),
        ),
        row_start=row_start,
        row_link=columns["link"],
        row_delay_ns=columns["delay_ns"],
        row_rate_ab_bit_s=columns["rate_ab_bit_s"],
        row_rate_ba_bit_s=columns["rate_ba_bit_s"],
        rate_scale=description["rate_scale"],
        scenario_toml=description["scenario"],
        row_loss_ratio=columns["loss_ratio"],
        events=Events(
            np.array(events["k"], dtype=np.int64),
            np.array(events["link"], dtype=np.int32),
            np.array(events["state"], dtype=np.uint8),
        ),
    )


def _aqm(columns: dict[str, Any], links: int) -> np.ndarray:
    aqm = np.empty(links, AQM)
    for name in AQM_NAMES:
        aqm[name] = columns[name]
    return aqm
