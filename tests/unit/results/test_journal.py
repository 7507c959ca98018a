"""Journals survive a kill: whole lines are read, a torn one is counted."""

from __future__ import annotations

import os
from pathlib import Path

from isl_emu.runs.journal import Journal, count_lines, read_journal, read_latest


def test_records_come_back_in_order(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal:
        journal.append({"a": 1, "text": "one\ntwo – drei"})
        journal.append({"a": None, "list": [1, 2]})
    content = read_journal(tmp_path / "j")
    assert content.records == ({"a": 1, "text": "one\ntwo – drei"}, {"a": None, "list": [1, 2]})
    assert content.lost_lines == 0


def test_each_record_is_on_disk_before_the_next(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    journal.append({"a": 1})
    assert read_journal(tmp_path / "j").records == ({"a": 1},)
    journal.close()


def test_torn_last_line_is_dropped_and_counted(tmp_path: Path) -> None:
    (tmp_path / "j").write_bytes(b'{"a":1}\n{"a":2}\n{"a":3,"te')
    content = read_journal(tmp_path / "j")
    assert [record["a"] for record in content.records] == [1, 2]
    assert content.lost_lines == 1


def test_line_torn_inside_a_character_or_a_number_is_dropped(tmp_path: Path) -> None:
    (tmp_path / "j").write_bytes('{"a":1}\n{"text":"°'.encode()[:-1])
    assert read_journal(tmp_path / "j").lost_lines == 1
    (tmp_path / "j").write_bytes(b'{"a":1}\n12')
    assert read_journal(tmp_path / "j").lost_lines == 1


def test_journal_that_was_never_begun_is_empty(tmp_path: Path) -> None:
    assert read_journal(tmp_path / "missing") == read_journal(Path("/dev/null"))


def test_two_writers_never_mix_lines(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as first, Journal(tmp_path / "j") as second:
        for number in range(20):
            first.append({"from": 1, "number": number})
            second.append({"from": 2, "number": number})
    assert len(read_journal(tmp_path / "j").records) == 40


def test_the_latest_records_begin_with_a_whole_line(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    assert read_latest(path) == ()
    with Journal(path) as journal:
        for number in range(100):
            journal.append({"n": number})
    assert [record["n"] for record in read_latest(path)] == list(range(100))
    assert [record["n"] for record in read_latest(path, 25)] == [98, 99]


def test_only_new_lines_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "j"
    assert count_lines(path) == 0
    path.write_bytes(b'{"a": 1}\n{"a": 2}\n{"a"')
    assert count_lines(path) == 2
    with path.open("r+b") as file:  # what was counted is not read again: nobody sees this
        file.write(b"\n\n\n\n\n")
        file.seek(0, os.SEEK_END)
        file.write(b": 3}\n")
    assert count_lines(path) == count_lines(path) == 3
    path.write_bytes(b'{"a": 1}\n')
    assert count_lines(path) == 1
    path.unlink()
    assert count_lines(path) == 0
