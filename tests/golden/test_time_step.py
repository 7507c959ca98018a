"""What a time step misses on Hypatia's Kuiper-630 pairs: a step of 1 s no path, one of 10 s a path of 2.8 s."""

from __future__ import annotations

from itertools import groupby

import pytest

from isl_emu.validate.kuiper import GOLDEN, Kuiper, satellites_of


@pytest.fixture(scope="module")
def kuiper() -> Kuiper:
    return Kuiper()


def _one_after_another(kuiper: Kuiper, pair: str, step_s: int) -> list[list[int]]:
    """The paths of a pair in the order in which a grid of `step_s` sees them."""
    return [path for path, _ in groupby(map(satellites_of, kuiper.paths_by_second(pair)[::step_s]))]


@pytest.mark.parametrize("pair", GOLDEN["paths"])
def test_a_step_of_a_second_sees_every_path(kuiper, pair):
    assert _one_after_another(kuiper, pair, 1) == [row["satellites"] for row in GOLDEN["paths"][pair]]


def test_a_step_of_ten_seconds_misses_a_path_of_less_than_three(kuiper):
    every, seen = _one_after_another(kuiper, "manila-dalian", 1), _one_after_another(kuiper, "manila-dalian", 10)
    assert [path for path in every if path not in seen] == [[647, 648, 649, 650, 616]]
