"""What a report says of faults: a row for each, and what was done in nodes."""

from __future__ import annotations

from isl_emu.parts.faults.results import FAULTS, MOST_SHOWN, faults_chapter
from isl_emu.show.chapter import DataTable


def test_a_row_for_each_and_what_was_done_in_nodes() -> None:
    row = dict.fromkeys(FAULTS.names) | {
        "fault": "cut", "what": "p00s00 - p00s01", "effect": "cut", "t_from_ns": 5 * 10**9, "recovery_ns": 10**9,
        "packets_lost": 1600, "no_path_worst_ns": 4 * 10**9, "questions_lost": 1, "questions_retried": 2,
    }  # fmt: skip
    dark = row | {
        "fault": "dark",
        "what": "p00s06",
        "effect": "power-off",
        "done": "1 process ended",
        "mended": "serves",
    }
    chapter = faults_chapter([row, dark])
    table, done = chapter.items
    assert isinstance(table, DataTable)
    assert table.rows[0] == ("cut", "p00s00 - p00s01", "cut", "5.00 s", "1.00 s", "1,600", "4.00 s", "1/2")
    assert isinstance(done, DataTable)
    assert done.rows == [("dark", "p00s06", "1 process ended serves")]
    (table,) = faults_chapter([row] * (MOST_SHOWN + 2)).items
    assert isinstance(table, DataTable)
    assert (len(table.rows), table.rest) == (MOST_SHOWN, "2 more are in faults.parquet")
