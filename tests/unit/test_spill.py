"""Plans whose rows do not stay in memory are the same plans."""

from __future__ import annotations

import errno
import os
import tracemalloc
from dataclasses import fields, replace

import numpy as np
import pyarrow as pa
import pytest

from isl_emu.errors import MachineError, ScenarioError
from isl_emu.linkplan import build, faults, plan, plan_file, rows
from isl_emu.linkplan.build import plan_links
from isl_emu.linkplan.contacts import contacts_with_terms, find_contacts, terms_of_kinds, terms_of_links
from isl_emu.linkplan.faults import with_faults
from isl_emu.linkplan.plan_file import read_plan, write_plan
from isl_emu.linkplan.rows import BlockedColumn
from isl_emu.linkplan.step_check import check_step
from isl_emu.network.desired import gso_byte, initial_ends, queue_kinds
from isl_emu.partition.cut import least_delays_ns
from isl_emu.partition.load import load_of
from isl_emu.planned import read_planned
from isl_emu.scenario.parse import parse_scenario
from isl_emu.show.measures import link_series, telling_links
from isl_emu.spill import Spill
from tests.scenarios import head, shell, station

LASERS = 'outages = { mean_time_to_failure = "3 min", mean_time_to_repair = "20 s" }\n'
SKY = (
    head("ring", duration="600 s", step="5 s") + shell(12) + LASERS + station("gs", latitude="0 deg", longitude="0 deg")
)
FAULTS = """
[[fault]]
name = "cut"
effect = "cut"
links = ["p00s0* - p00s*"]
mtbf = "100 s"
mttr = "40 s"
known = "after 20 s"
[[fault]]
name = "worse"
effect = "degrade"
satellites = "all"
loss = 0.03
jitter = "1 ms"
rate_factor = 0.5
mtbf = "60 s"
mttr = "30 s"
"""


@pytest.fixture(scope="module")
def held():
    return plan_links(parse_scenario(SKY, "test"), SKY)


@pytest.fixture(scope="module")
def faulty():
    return plan_links(parse_scenario(SKY + FAULTS, "test"), SKY + FAULTS)


@pytest.fixture
def in_pieces(monkeypatch):
    """A few rows are many."""
    for module in (rows, plan, faults):
        monkeypatch.setattr(module, "ROWS_AT_ONCE", 100)
    monkeypatch.setattr(plan_file, "ROWS_HELD", 100)
    monkeypatch.setattr(faults, "ROWS_LAID", 70)
    monkeypatch.setattr(plan_file, "ROWS_OF_GROUP", 90)


def _columns(record) -> list[list]:
    return [getattr(record, one.name).tolist() for one in fields(record)]


def test_memory_does_not_grow_with_each_ground_link_of_a_longer_plan(monkeypatch):
    """Beyond what is in files only one station's links are in memory at a time, of ten here."""
    monkeypatch.setattr(build, "POSITIONS_AT_ONCE", 2_000)  # a hundred instants
    sky = shell(20, 5, 1, altitude="8000 km", lasers="none")
    sites = ((f"gs-{number}", f"{5 * number} deg", f"{20 * number} deg") for number in range(10))
    terms = {"min_elevation": "5 deg", "antennas": 4, "handover": "longest-contact"}
    sky += "".join(station(name, latitude=latitude, longitude=east, **terms) for name, latitude, east in sites)

    def taken(seconds: int) -> tuple[int, int]:
        scenario = parse_scenario(head(duration=f"{seconds} s", step="1 s") + sky, "test")
        tracemalloc.start()
        try:
            made = plan_links(scenario, "", empty=Spill(0).empty)
            return tracemalloc.get_traced_memory()[1], len(made.row_link)
        finally:
            tracemalloc.stop()

    (few_byte, few), (more_byte, more) = taken(300), taken(1_300)
    assert more > few + 20_000
    assert (more_byte - few_byte) / (more - few) < 76, "no more than a row takes; it was 200"


def test_arrays_beyond_the_limit_are_in_files_and_as_good():
    spill = Spill(held_byte=1000)
    arrays = [spill.empty(count, kind) for count, kind in ((100, "i8"), (100, "i8"), (7, "u1"), (30, "f8"), (0, "i4"))]
    for number, array in enumerate(arrays):
        array[:] = number
    assert [array.tolist() for array in arrays] == [[0] * 100, [1] * 100, [2] * 7, [3.0] * 30, []]
    assert [array.dtype for array in arrays] == ["i8", "i8", "u1", "f8", "i4"]
    assert [array.flags.owndata for array in arrays[:2]] == [True, False]


def test_a_full_disk_is_told(monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(MachineError, match=r"has no room for 0\.3 GB \(No space left on device\).*set TMPDIR"):
        Spill(0).empty(1, np.int64)


def test_a_plan_in_files_is_the_same_plan(held):
    assert plan_links(parse_scenario(SKY, "test"), SKY, empty=Spill(0).empty).digest() == held.digest()


def test_what_is_worked_out_piece_by_piece_is_the_same(held, in_pieces):
    assert len(list(held.pieces())) > 5
    again = plan_links(parse_scenario(SKY, "test"), SKY)
    assert again.digest() == held.digest()
    assert check_step(again) == check_step(held)


@pytest.mark.parametrize("text", [SKY, SKY + FAULTS])
def test_contacts_and_terms_in_pieces_are_the_same(held, faulty, text, monkeypatch):
    whole = held if text == SKY else faulty
    asked = (find_contacts, lambda plan: contacts_with_terms(plan)[1], terms_of_links)
    expected = [ask(whole) for ask in asked]
    assert len(expected[0].link) > 30
    monkeypatch.setattr(rows, "ROWS_AT_ONCE", 100)
    for ask, columns in zip(asked, expected, strict=True):
        for name, column in vars(ask(whole)).items():
            np.testing.assert_allclose(column, getattr(columns, name), rtol=1e-12, err_msg=name)  # losses are sums


def test_what_a_run_and_pictures_ask_of_all_rows_is_the_same_in_pieces(faulty, monkeypatch):
    asked = {
        "first states": lambda plan: initial_ends(plan, 0).tolist(),
        "queues": lambda plan: queue_kinds(plan).tolist(),
        "super-packets": lambda plan: gso_byte(plan).tolist(),
        "least delays": lambda plan: least_delays_ns(plan).tolist(),
        "changes": lambda plan: load_of(plan).run_s.tolist(),
        "kinds": lambda plan: {kind: vars(terms)["delay_ns"] for kind, terms in terms_of_kinds(plan).items()},
        "telling": telling_links,
        "one link": lambda plan: [column.tolist() for column in vars(link_series(plan, 3)).values()],
    }
    expected = {name: repr(ask(faulty)) for name, ask in asked.items()}
    monkeypatch.setattr(rows, "ROWS_AT_ONCE", 100)
    assert {name: repr(ask(faulty)) for name, ask in asked.items()} == expected


def test_events_and_rows_agree_on_contacts(faulty):
    for one in (faulty, faulty.sky, faulty.known):
        up = np.zeros((len(one.links.a), one.grid.count), bool)
        for k in range(one.grid.count):
            up[one.snapshot(k).link, k] = True
        told, contacts = np.zeros_like(up), find_contacts(one)
        for link, start_ns, end_ns in zip(contacts.link, contacts.start_ns, contacts.end_ns, strict=True):
            assert not told[link, start_ns // one.grid.step_ns]
            told[link, start_ns // one.grid.step_ns : end_ns // one.grid.step_ns] = True
        assert np.array_equal(up, told)


def test_faults_laid_piece_by_piece_make_the_same_plan(faulty, in_pieces):
    assert len(faulty.faults.fault) > 20
    later = with_faults(faulty.sky, faulty.faults)
    assert isinstance(later.row_link, BlockedColumn)
    kept = with_faults(faulty.sky, faulty.faults, Spill(0).empty)
    assert isinstance(kept.row_link, np.ndarray)
    assert later.digest() == kept.digest() == faulty.digest()
    assert later.known.digest() == kept.known.digest() == faulty.known.digest()


@pytest.mark.parametrize("text", [SKY, SKY + FAULTS])
def test_a_long_plan_is_read_from_its_file_in_parts(held, faulty, text, in_pieces, tmp_path):
    whole = held if text == SKY else faulty
    write_plan(whole, tmp_path / "plan.parquet")
    assert plan_file.pq.ParquetFile(tmp_path / "plan.parquet").num_row_groups > 5
    again = read_plan(tmp_path / "plan.parquet")
    assert isinstance(again.row_delay_ns, BlockedColumn)
    assert again.digest() == whole.digest() == replace(again).digest()  # of which the latter looks at all rows
    for one, other in ((again, whole), (again.sky, whole.sky), (again.known, whole.known)):
        assert _columns(one.events) == _columns(other.events)
        for k in (0, 7, 119):
            assert _columns(one.snapshot(k)) == _columns(other.snapshot(k))
        assert [part.tolist() for part in (one.rows_of_link(3)[0], *vars(one.rows_of_link(3)[1]).values())] == [
            part.tolist() for part in (other.rows_of_link(3)[0], *vars(other.rows_of_link(3)[1]).values())
        ]
        up_k, _ = other.sky.rows_of_link(5)
        (found, cut), (expected, theirs) = (part.rows_over(up_k[::-7], [5]) for part in (one, other))
        assert _columns(found) == _columns(expected) and cut.tolist() == theirs.tolist()
    write_plan(again, tmp_path / "again.parquet")
    assert (tmp_path / "again.parquet").read_bytes() == (tmp_path / "plan.parquet").read_bytes()


def test_a_path_at_an_instant_reads_the_groups_of_that_instant_alone(held, in_pieces, tmp_path, monkeypatch):
    write_plan(held, tmp_path / "plan.parquet")
    read, fetched = [], plan_file._StoredRows._fetched

    def told(self, name, group):
        read.append((name, group))
        return fetched(self, name, group)

    monkeypatch.setattr(plan_file._StoredRows, "_fetched", told)
    planned = read_planned(tmp_path / "plan.parquet")
    assert not read
    link = int(held.snapshot(60).link[0])
    assert planned.path(*(planned.nodes[ends[link]] for ends in (held.links.a, held.links.b)), 60)
    assert {group for _, group in read} <= {held.row_start[60] // 90, (held.row_start[61] - 1) // 90}


def test_an_altered_group_of_a_long_plan_is_found_when_it_is_read(held, in_pieces, tmp_path):
    path = tmp_path / "plan.parquet"
    write_plan(held, path)
    file = plan_file.pq.ParquetFile(path)
    metadata, table = file.metadata.metadata, file.read()
    delays = table.column("delay_ns").to_numpy().copy()
    delays[-1] += 1
    table = table.set_column(5, plan_file.SCHEMA.field("delay_ns"), pa.array(delays))
    with plan_file.pq.ParquetWriter(path, table.schema, compression="zstd") as writer:
        writer.write_table(table, row_group_size=90)
        writer.add_key_value_metadata({plan_file.GROUPS_KEY: metadata[plan_file.GROUPS_KEY]})
    plan = read_plan(path)
    assert len(plan.snapshot(0).link)
    with pytest.raises(ScenarioError, match=r"plan\.parquet: its content differs from its digest"):
        plan.snapshot(plan.grid.count - 1)


def test_an_altered_description_of_a_long_plan_is_refused(held, in_pieces, tmp_path):
    path = tmp_path / "plan.parquet"
    write_plan(held, path)
    file = plan_file.pq.ParquetFile(path)
    metadata, table = file.metadata.metadata, file.read()
    text = metadata[plan_file.METADATA_KEY].replace(b'"rate_scale":1.0', b'"rate_scale":0.5')
    assert text != metadata[plan_file.METADATA_KEY]
    plan_file.pq.write_table(table.replace_schema_metadata({**metadata, plan_file.METADATA_KEY: text}), path)
    with pytest.raises(ScenarioError, match="its content differs from its digest"):
        read_plan(path)
