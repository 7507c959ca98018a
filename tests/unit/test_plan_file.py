from __future__ import annotations

import json
from dataclasses import fields, replace
from datetime import datetime, timedelta, timezone

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from isl_emu.errors import ScenarioError
from isl_emu.linkplan import plan_file
from isl_emu.linkplan.fault_events import Faults
from isl_emu.linkplan.plan import Events, LinkKind, LinkPlan, Links, LinkState, NodeKind, Nodes
from isl_emu.linkplan.plan_file import (
    EVENTS_KEY,
    FORMAT,
    FORMAT_WITH_FAULTS,
    METADATA_KEY,
    SCHEMA,
    read_plan,
    write_plan,
)
from isl_emu.linkplan.step_check import check_step
from isl_emu.timebase import TimeGrid
from tests.plans import MS, make_plan

START = datetime(2026, 3, 20, 14, 0, 0, 123_456, tzinfo=timezone.utc)


def small_plan() -> LinkPlan:
    """Two satellites and a station over three instants; the second has no links."""
    return LinkPlan(
        grid=TimeGrid(START, 500_000_000, 3),
        nodes=Nodes(("p00s00", "p00s01", "gs-berlin"), np.array([0, 0, NodeKind.STATION], dtype=np.uint8)),
        links=Links(
            np.array([0, 1], dtype=np.int32),
            np.array([1, 2], dtype=np.int32),
            np.array([LinkKind.INTRA_PLANE, LinkKind.GROUND], dtype=np.uint8),
            np.array([20_000_000, 50_000_000]),
        ),
        row_start=np.array([0, 2, 2, 3]),
        row_link=np.array([0, 1, 1], dtype=np.int32),
        row_delay_ns=np.array([6_578_000, 2_000_001, 2_000_100]),
        row_rate_ab_bit_s=np.array([10**11, 2 * 10**9, 2 * 10**9]),
        row_rate_ba_bit_s=np.array([10**11, 10**9, 10**9]),
        rate_scale=0.001,
        scenario_toml='name = "zwölf"\n',
        row_loss_ratio=np.array([0.0, 0.125, 1e-9]),
        events=Events(
            np.array([0, 0, 1, 1, 2]),
            np.array([0, 1, 0, 1, 1], dtype=np.int32),
            np.array([3, 3, LinkState.LOST, LinkState.IDLE, LinkState.TRACKING], dtype=np.uint8),
        ),
    )


@pytest.fixture
def written(tmp_path):
    path = tmp_path / "plan.parquet"
    write_plan(small_plan(), path)
    return path


def _rewrite(path, change_table=lambda table: table, **changes):
    """The file again with parts of its description or its rows replaced."""
    table = pq.ParquetFile(path).read()
    description = json.loads(table.schema.metadata[METADATA_KEY])
    text = json.dumps({key: value for key, value in {**description, **changes}.items() if value is not None})
    metadata = {**table.schema.metadata, METADATA_KEY: text}
    pq.write_table(change_table(table).replace_schema_metadata(metadata), path)


def _equal(one, other) -> bool:
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    if isinstance(one, (Nodes, Links, Events, Faults)):
        return all(_equal(getattr(one, field.name), getattr(other, field.name)) for field in fields(one))
    return one == other


def test_a_plan_comes_back_whole(written):
    plan, again = small_plan(), read_plan(written)
    for field in fields(LinkPlan):
        assert _equal(getattr(plan, field.name), getattr(again, field.name)), field.name
    assert again.digest() == plan.digest()
    assert again.grid.start - START == timedelta(0)


def test_equal_plans_give_equal_files(written, tmp_path):
    write_plan(read_plan(written), tmp_path / "again.parquet")
    assert (tmp_path / "again.parquet").read_bytes() == written.read_bytes()


def test_the_rows_speak_for_themselves(written):
    rows = pq.read_table(written).to_pylist()
    assert rows[0] == {
        "t_ns": 0,
        "link": 0,
        "a": "p00s00",
        "b": "p00s01",
        "kind": "intra-plane",
        "delay_ns": 6_578_000,
        "rate_ab_bit_s": 10**11,
        "rate_ba_bit_s": 10**11,
        "loss_ratio": 0.0,
    }
    assert [(row["t_ns"], row["b"], row["kind"]) for row in rows[1:]] == [
        (0, "gs-berlin", "ground"),
        (1_000_000_000, "gs-berlin", "ground"),
    ]


def test_a_plan_without_rows_comes_back(tmp_path):
    none = np.empty(0, dtype=np.int32)
    links = Links(none, none, none.astype(np.uint8), none.astype(np.int64))
    rows = [none.astype(np.int64)] * 3
    plan = LinkPlan(small_plan().grid, small_plan().nodes, links, np.zeros(4, dtype=np.int64), none, *rows, 1.0, "")
    write_plan(plan, tmp_path / "plan.parquet")
    assert read_plan(tmp_path / "plan.parquet").digest() == plan.digest()


def test_a_folder_with_an_equals_sign_adds_no_column(tmp_path):
    folder = tmp_path / "seed=1"
    folder.mkdir()
    write_plan(small_plan(), folder / "plan.parquet")
    assert read_plan(folder / "plan.parquet").digest() == small_plan().digest()


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ScenarioError, match=r"nowhere.parquet: cannot be read"):
        read_plan(tmp_path / "nowhere.parquet")


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "plan.parquet"
    path.write_text("name = 'a scenario'\n")
    with pytest.raises(ScenarioError, match="not readable as Parquet"):
        read_plan(path)
    pq.write_table(pa.table({"x": [1]}), path)
    with pytest.raises(ScenarioError, match=r"no isl_emu.plan in its metadata"):
        read_plan(path)


def test_the_file_says_what_its_time_step_does(tmp_path):
    link = (0, 1)
    plan = make_plan(2, [], [{link: MS}, {}, {link: MS}, {}, {link: 3 * MS}, {link: 2 * MS}])
    write_plan(plan, tmp_path / "plan.parquet")
    described = json.loads(pq.ParquetFile(tmp_path / "plan.parquet").schema_arrow.metadata[METADATA_KEY])["time_step"]
    assert described["delay_change_max_ns"] == MS
    assert described["contacts"] == {"count": 1, "shortest_ns": 10**9, "once": 1, "expected_missed": 0.5}
    assert described["gaps"]["once"] == 2
    assert described["warnings"] == list(check_step(plan).warnings)


def test_other_formats_are_refused(written):
    newer = FORMAT_WITH_FAULTS + 1
    _rewrite(written, format=newer)
    with pytest.raises(ScenarioError, match=f"its format is {newer}, but this isl-emu reads formats {FORMAT} and"):
        read_plan(written)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda table: table.drop_columns(["delay_ns"]), "its columns are"),
        (lambda table: table.set_column(1, "link", table.column("link").cast(pa.int64())), "its columns are"),
        (lambda table: table.slice(0, 2), "its content differs from its digest"),
    ],
)
def test_altered_rows_are_refused(written, change, complaint):
    _rewrite(written, change)
    with pytest.raises(ScenarioError, match=complaint):
        read_plan(written)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"nodes": None}, "its description is broken"),
        ({"grid": {"start": "noon", "step_ns": 1, "count": 3}}, "its description is broken"),
        ({"links": {"a": ["x"]}}, "its description is broken"),
        ({"rate_scale": 0.5}, "its content differs from its digest"),
        ({"format": None}, "its description is not readable"),
    ],
)
def test_altered_descriptions_are_refused(written, changes, complaint):
    _rewrite(written, **changes)
    with pytest.raises(ScenarioError, match=complaint):
        read_plan(written)


def test_events_are_readable_without_us(written):
    events = json.loads(pq.read_schema(written).metadata[EVENTS_KEY])
    states = [events["states"][state] for state in events["state"]]
    assert list(zip(events["k"], events["link"], states, strict=True)) == [
        (0, 0, "tracking"), (0, 1, "tracking"), (1, 0, "lost"), (1, 1, "idle"), (2, 1, "tracking"),
    ]  # fmt: skip


@pytest.mark.parametrize("change", [{"state": [0] * 5}, {"k": [0, 0, 1, 1, 1]}])
def test_altered_events_are_refused(written, change):
    table = pq.ParquetFile(written).read()
    events = {**json.loads(table.schema.metadata[EVENTS_KEY]), **change}
    pq.write_table(table.replace_schema_metadata({**table.schema.metadata, EVENTS_KEY: json.dumps(events)}), written)
    with pytest.raises(ScenarioError, match="its content differs from its digest"):
        read_plan(written)


@pytest.mark.parametrize("change", [{"scenario_toml": "x"}, {"row_loss_ratio": np.array([0.0, 0.125, 2e-9])}])
def test_the_digest_covers_scenario_and_losses(change):
    assert replace(small_plan(), **change).digest() != small_plan().digest()


@pytest.mark.parametrize("name", SCHEMA.names)
def test_every_column_is_documented(name):
    assert name in plan_file.__doc__
