"""Plans whose rows do not stay in memory are the same plans."""

from __future__ import annotations

import errno
import os
from dataclasses import fields

import numpy as np
import pytest

from isl_emu.errors import MachineError
from isl_emu.linkplan import events, plan, plan_file
from isl_emu.linkplan.build import plan_links
from isl_emu.linkplan.contacts import contacts_with_terms, find_contacts
from isl_emu.linkplan.plan_file import read_plan, write_plan
from isl_emu.linkplan.step_check import check_step
from isl_emu.scenario.parse import parse_scenario
from isl_emu.spill import Spill
from tests.scenarios import head, shell, station

LASERS = 'outages = { mean_time_to_failure = "3 min", mean_time_to_repair = "20 s" }\n'
SKY = (
    head("ring", duration="600 s", step="5 s") + shell(12) + LASERS + station("gs", latitude="0 deg", longitude="0 deg")
)


@pytest.fixture(scope="module")
def held():
    return plan_links(parse_scenario(SKY, "test"), SKY)


@pytest.fixture
def in_pieces(monkeypatch):
    """A few rows are many."""
    monkeypatch.setattr(events, "ROWS_AT_ONCE", 100)
    monkeypatch.setattr(plan, "ROWS_AT_ONCE", 100)
    monkeypatch.setattr(plan_file, "ROWS_OF_GROUP", 100)


def _columns(record) -> list[list]:
    return [getattr(record, one.name).tolist() for one in fields(record)]


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
    assert len(list(events.blocks_by_link(held.row_link, len(held.links.a)))) > 5
    again = plan_links(parse_scenario(SKY, "test"), SKY)
    assert again.digest() == held.digest()
    assert check_step(again) == check_step(held)


def test_contacts_of_links_in_pieces_are_the_same(held, monkeypatch):
    contacts, terms = contacts_with_terms(held)
    assert len(contacts.link) > 30
    monkeypatch.setattr(events, "ROWS_AT_ONCE", 100)
    others, their_terms = contacts_with_terms(held)
    assert _columns(others) == _columns(contacts) == _columns(find_contacts(held))
    assert _columns(their_terms) == _columns(terms)


def test_a_file_in_groups_of_rows_gives_the_plan_again(held, in_pieces, tmp_path):
    write_plan(held, tmp_path / "plan.parquet")
    assert plan_file.pq.ParquetFile(tmp_path / "plan.parquet").num_row_groups > 5
    assert read_plan(tmp_path / "plan.parquet").digest() == held.digest()
