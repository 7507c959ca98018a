"""Hypatia's published Kuiper-630 series, recomputed by our own propagation, geometry, link plan and routes."""

from __future__ import annotations

import pytest

from isl_emu.validate import kuiper

PAIRS = list(kuiper.GOLDEN["rtt_ms"])


@pytest.fixture(scope="module")
def constellation():
    return kuiper.Kuiper()


@pytest.mark.parametrize("pair", PAIRS)
def test_round_trips_are_the_published_ones(constellation, pair):
    checks = list(kuiper.round_trips(constellation, pair))
    assert len(checks) == 28
    assert [check for check in checks if not check.passed] == []


@pytest.mark.parametrize("pair", PAIRS)
def test_paths_change_to_the_published_ones_within_a_tick(constellation, pair):
    checks = list(kuiper.paths(constellation, pair))
    assert len(checks) >= 11
    assert [check for check in checks if not check.passed] == []


@pytest.mark.parametrize("pair", PAIRS)
def test_paths_at_whole_seconds_are_the_published_ones(constellation, pair):
    for t_s, path in enumerate(constellation.paths_by_second(pair)):
        assert kuiper.satellites_of(path) == kuiper.published_satellites(pair, t_s), t_s


def test_only_one_row_is_taken_a_tick_earlier():
    early = [row["t_s"] for rows in kuiper.GOLDEN["rtt_ms"].values() for row in rows if row.get("limit_within_tick")]
    assert early == [27.5]


def test_the_constellation_has_the_published_size(constellation):
    lasers = constellation.space.lasers
    assert len(lasers.a) == len(set(zip(lasers.a.tolist(), lasers.b.tolist(), strict=True))) == 2312
