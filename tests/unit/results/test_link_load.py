"""How busy links were, from the samples of their counters: a row stands only where something differs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from isl_emu.results.conclude import LINKS
from isl_emu.results.link_load import busiest, links_chapter
from isl_emu.show.chapter import DataTable, Picture
from tests.plans import MS, SECOND, make_plan

RATE_BIT_S = 8_000_000


def run_with(rows: list[dict[str, Any]]) -> Any:
    """A ring of three for 20 s, sampled every 5 s; the link from p00s00 to p00s01 is down for the last 10 s."""
    links = {(0, 1): MS, (1, 2): MS}
    plan = make_plan(3, [], [links] * 10 + [{(1, 2): MS}] * 10, rate_bit_s=RATE_BIT_S, step_ns=SECOND)
    empty = dict.fromkeys(LINKS.names, 0)
    table = pa.Table.from_pylist([empty | row for row in rows], schema=LINKS) if rows is not None else None
    return SimpleNamespace(
        plan=plan,
        scenario=SimpleNamespace(counters=SimpleNamespace(interval_ns=5 * SECOND)),
        table=lambda name: table if name == "links" else None,
        rows=lambda name: [],
    )


ROWS = [
    {"t_ns": 5 * SECOND, "node": "p00s00", "peer": "p00s01", "sent_byte": 500_000},
    {"t_ns": 5 * SECOND, "node": "p00s01", "peer": "p00s00", "sent_byte": 100},
    {"t_ns": 20 * SECOND, "node": "p00s01", "peer": "p00s02", "sent_byte": 5_000_000, "backlog_byte": 3_000},
    {"t_ns": 15 * SECOND, "node": "p00s00", "peer": "p00s01", "sent_byte": 1_000_000, "waiting_byte": 0},
]


def test_a_row_tells_of_the_interval_before_it_and_of_no_longer_time() -> None:
    first, second, third = busiest(run_with(ROWS), 3)
    assert [load.name for load in (first, second, third)] == [
        "p00s01 → p00s02", "p00s00 → p00s01", "p00s01 → p00s00",
    ]  # fmt: skip
    assert (first.begin_ns.tolist(), first.end_ns.tolist()) == ([15 * SECOND], [20 * SECOND])
    assert first.rate_bit_s.tolist() == [8_000_000]
    assert first.used_ratio == pytest.approx([1.0])
    assert second.begin_ns.tolist() == [0, 10 * SECOND]
    assert second.rate_bit_s.tolist() == [800_000, 800_000]
    assert second.used_ratio == pytest.approx([0.1, 0.0])  # down in the second: nothing could be carried
    assert len(busiest(run_with(ROWS), 2)) == 2


def test_the_chapter_draws_what_there_is() -> None:
    said, picture, table = links_chapter(run_with(ROWS), {"dropped_packets": 3}).items
    assert said == "3 packets were dropped."
    assert isinstance(picture, Picture)
    assert "p00s01 → p00s02 8.00 Mbit/s" in picture.alt
    assert len(picture.draw().axes) == 2
    assert isinstance(table, DataTable)
    assert table.rows[0][:6] == ("p00s01 → p00s02", "5.00 MB", "0", "8.00 Mbit/s", "100%", "25%")
    assert links_chapter(run_with([]), {}).items == ["No link has carried anything."]


def test_without_a_backlog_there_is_one_panel() -> None:
    picture, _ = links_chapter(run_with(ROWS[:2]), {}).items
    assert isinstance(picture, Picture)
    assert len(picture.draw().axes) == 1
    assert "At none of the samples" in picture.caption
