"""Results of an older version, which had no path_changes and knew no drops by faults, stay readable."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq

from isl_emu.results.report import read_concluded, report_html
from isl_emu.results.run_results import RunResults
from isl_emu.tables.schema import RESULTS_FORMAT

FOLDER = Path(__file__).parent / "results"


def test_its_tables_are_read_and_its_report_is_made() -> None:
    results = RunResults(FOLDER)
    assert "path_changes" not in results.tables
    assert results.fidelity["verdict"] == "valid"
    assert results.table("requests").num_rows == 1
    assert "dropped_fault" not in results.table("links").column_names
    page = report_html(read_concluded(FOLDER))
    assert "Path changes" not in page
    assert "p00s00 → p00s01" in page
    assert "the queue was full" in page


def test_its_format_is_that_of_today() -> None:
    """Who raises the format adds a folder of the one before, and what reads it."""
    for path in FOLDER.glob("*.parquet"):
        if path.stem != "plan":
            assert pq.read_schema(path).metadata[b"isl_emu_results_format"].decode() == RESULTS_FORMAT
