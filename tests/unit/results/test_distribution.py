"""Percentiles are numpy's, and gaps stay gaps."""

from __future__ import annotations

import numpy as np

from isl_emu.tables.text import Distribution


def test_figures_are_those_of_numpy() -> None:
    values = np.random.default_rng(5).exponential(1e6, 257)
    spread = Distribution.of(values)
    half_a_thousandth = 0.0005
    for figure, percent in ((spread.p50, 50), (spread.p90, 90), (spread.p95, 95), (spread.p99, 99), (spread.max, 100)):
        assert abs(figure - np.percentile(values, percent)) <= half_a_thousandth
    assert spread.count == 257


def test_missing_values_are_left_out_not_zero() -> None:
    assert Distribution.of([None, 4.0, None, 6.0]) == Distribution.of([4.0, 6.0])
    assert Distribution.of([None, 4.0, 6.0]).p50 == 5.0


def test_nothing_has_no_figures() -> None:
    assert Distribution.of([]) == Distribution(0, None, None, None, None, None)
