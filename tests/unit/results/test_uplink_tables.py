"""What an uplink's tables and section of the summary say about attempts, contacts and satellites."""

from __future__ import annotations

import json
from typing import Any

import pyarrow.parquet as pq
import pytest

from isl_emu.parts.uplink.results import uplink_section
from isl_emu.results.conclude import write_tables
from tests.unit.results.conftest import MiniatureRun, S

SIZE_BYTE = 100_000
PLAN = {
    "manifest": {"size_byte": SIZE_BYTE, "piece_byte": 50_000, "digests": ["a", "b"]},
    "planned_end_ns": 8 * S // 5,
    "receivers": {
        "p00s01": {"kind": "uplink", "sources": ["gs-a"]},
        "p00s00": {"kind": "tree", "sources": ["p00s01"]},
        "p00s02": {"kind": "tree", "sources": ["p00s01"]},
    },
}


def attempt(source: str = "gs-a", destination: str = "p00s01", **changes: Any) -> dict[str, Any]:
    """An uplink's attempt that crosses the station's handover at 2 s."""
    record = {
        "source": source, "destination": destination, "kind": "uplink" if source == "gs-a" else "tree",
        "t_start_ns": S // 2, "t_end_ns": 5 * S // 2, "resumed_from_byte": 0, "received_byte": SIZE_BYTE,
        "outcome": "completed", "error": None, "digest_ok": True, "tries": 1,
    }  # fmt: skip
    return {**record, **changes}


@pytest.fixture
def tables(bare_run: MiniatureRun):
    """Writes the tables of an uplink from its journals, and reads them again."""

    def write(attempts, held=(), serving=(), unserved=()):
        (bare_run.journal / "transfer_plan.json").write_text(json.dumps(PLAN))
        bare_run.write("transfers.jsonl", attempts)
        bare_run.write("held.jsonl", [{"satellite": name, "t_ns": t_ns} for name, t_ns in held])
        bare_run.write("serving.jsonl", [{"satellite": name, "t_ns": t_ns} for name, t_ns in serving])
        bare_run.write("unserved.jsonl", [{"satellite": name, "error": error} for name, error in unserved])
        write_tables(bare_run.finished())
        return [pq.read_table(bare_run.folder.table(name)).to_pylist() for name in ("transfers", "deliveries")]

    return write


def test_an_attempt_from_the_ground_counts_contacts_and_what_they_could_carry(tables):
    ((row,), _) = tables([attempt()])
    assert row["path_at_start"] == ["gs-a", "p00s00", "p00s01"]
    assert (row["hops_at_start"], row["handovers"], row["contacts"]) == (2, 1, 2)
    assert row["capacity_byte"] == 500_000 * 2 // 8  # 1 Mbit/s up at half the rate, for two seconds
    assert row["goodput_bit_s"] == SIZE_BYTE * 8 // 2


def test_between_satellites_the_lasers_limit_and_no_contacts_are_counted(tables):
    ((row,), _) = tables([attempt("p00s01", "p00s02")])
    assert (row["contacts"], row["handovers"], row["hops_at_start"]) == (None, 0, 1)
    assert row["capacity_byte"] == 50_000_000 * 2 // 8


def test_each_satellite_says_when_it_served_or_why_not(tables):
    half = attempt("p00s01", "p00s00", received_byte=50_000, outcome="stalled", error="nothing came for 5 s")
    _, rows = tables([attempt(), half], held=[("p00s01", 3 * S)], serving=[("p00s01", 4 * S)])
    first, stalled, unreached = rows
    assert (first["t_planned_ns"], first["t_held_ns"], first["t_serving_ns"]) == (8 * S // 5, 3 * S, 4 * S)
    assert first["error"] is None
    assert stalled["error"] == (
        "it had 50,000 of 100,000 bytes when the run ended; its last attempt, from p00s01, was stalled: nothing came "
        "for 5 s"
    )
    assert unreached["error"] == "it had 0 of 100,000 bytes when the run ended; no source had the file for it"


def test_a_server_that_does_not_come_up_is_named_with_its_reason(tables):
    held = [("p00s01", S), ("p00s00", S)]
    _, rows = tables([attempt()], held=held, unserved=[("p00s00", "it needs more memory")])
    assert [row["error"] for row in rows[:2]] == [
        "its server was still loading the model when the run ended", "it needs more memory"
    ]  # fmt: skip


def test_the_summary_tells_the_whole_way(tables):
    resumed = attempt(t_start_ns=3 * S, t_end_ns=7 * S // 2, resumed_from_byte=60_000, received_byte=40_000)
    rows = [attempt(received_byte=60_000, outcome="stalled"), resumed, attempt("p00s01", "p00s02", t_start_ns=S)]
    transfers, deliveries = tables(
        rows, held=[("p00s01", S), ("p00s02", 2 * S)], serving=[("p00s01", 3 * S), ("p00s02", 7 * S // 2)]
    )
    lines = list(uplink_section(deliveries, transfers))
    text = "\n".join(lines)
    assert lines[0] == "MODEL UPLINK  0.10 MB to 3 satellites"
    assert "first satellite serves at 3.00 s · 2 of 3 serve at 3.50 s" in text
    assert "gs-a to p00s01: 0.10 MB · 2 attempts · resumed 1 time · 2 contacts · goodput 0.32 Mbit/s" in text
    assert "planned rates alone: 1.60 s" in text
    assert "between satellites: 0.10 MB received · 0.10 MB over all links" in text
    assert "p00s00 does not serve: it had 0 of 100,000 bytes" in text
    assert max(map(len, lines)) <= 100


def test_nothing_came_up_at_all(tables):
    transfers, deliveries = tables([])
    text = "\n".join(uplink_section(deliveries, transfers))
    assert "no satellite served" in text
    assert "ground to p00s01: no station reached it" in text
