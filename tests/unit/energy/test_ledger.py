"""The rows of the energy table: means over time that add up, one a step or in turns."""

from __future__ import annotations

import numpy as np
import pytest

from isl_emu.energy import ledger
from isl_emu.energy.ledger import Ledger
from tests.unit.energy.fleets import small_fleet

SECOND_NS = 1_000_000_000


def lived(count: int, steps: list[int], at_once: int, monkeypatch) -> list[dict]:
    """The rows of `count` satellites in the Sun on odd steps, busier by their number, over steps of these lengths."""
    monkeypatch.setattr(ledger, "ROWS_AT_ONCE", at_once)
    fleet = small_fleet(count, start_charge=0.9)
    book, rows, t_ns = Ledger(fleet), [], 0
    state = fleet.begin(np.zeros(count), 1.0)
    for number, span_s in enumerate(steps, start=1):
        sun, busy = np.full(count, float(number % 2)), np.arange(count) / 10
        after, flow = fleet.advance(state, sun, sun, busy, span_s)
        book.add(state, flow, sun > 0, busy, span_s * SECOND_NS)
        t_ns += span_s * SECOND_NS
        rows += book.rows(number, t_ns, after)
        state = after
    return rows + list(book.rows(len(steps), t_ns, state, last=True))


def test_few_satellites_have_a_row_each_step(monkeypatch):
    rows = lived(2, [1, 1, 2], 200, monkeypatch)
    assert [(row["satellite"], row["t_ns"] // SECOND_NS) for row in rows] == [
        ("p00s00", 1), ("p00s01", 1), ("p00s00", 2), ("p00s01", 2), ("p00s00", 4), ("p00s01", 4)
    ]  # fmt: skip
    assert [row["sunlit_ratio"] for row in rows[::2]] == [1.0, 0.0, 1.0]
    assert rows[-1]["interval_ns"] == 2 * SECOND_NS
    assert rows[-1]["board_w"] == pytest.approx(10.0 + 50.0 * 0.1)


def test_many_take_turns_and_nothing_is_lost(monkeypatch):
    steps = [1, 2, 1, 1, 3, 1, 1]
    each, turns = lived(7, steps, 200, monkeypatch), lived(7, steps, 3, monkeypatch)
    assert len(each) == 7 * 7
    assert len(turns) < 30
    for name in {row["satellite"] for row in each}:
        for column in ("solar_w", "board_w", "battery_w", "busy_ratio", "sunlit_ratio"):
            sums = [sum(r[column] * r["interval_ns"] for r in rows if r["satellite"] == name) for rows in (each, turns)]
            assert sums[0] == pytest.approx(sums[1], rel=1e-5)
    assert sum(row["interval_ns"] for row in turns) == 7 * sum(steps) * SECOND_NS
    per_step = [sum(row["t_ns"] == t for row in turns) for t in {row["t_ns"] for row in turns}]
    assert max(per_step[:-1]) <= 3
