"""The order of a ring: as good as trying all of them where that is possible, and no worse than obvious ones beyond."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isl_emu.parts.training import planned_ways
from isl_emu.parts.training.planned_ways import least_longest, least_total, longest_ns


def total_ns(delay_ns: np.ndarray, order: list[int]) -> float:
    """The sum of the delays around a ring."""
    return float(delay_ns[order, np.roll(order, -1)].sum())


def random_delays(count: int, seed: int) -> np.ndarray:
    places = np.random.default_rng(seed).uniform(0, 1e7, (count, 3))
    return np.linalg.norm(places[:, None] - places[None], axis=2)


def all_rings(count: int) -> list[list[int]]:
    return [[0, *rest] for rest in permutations(range(1, count))]


@given(st.integers(1, 7), st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_small_rings_are_the_best_of_all(count: int, seed: int) -> None:
    delays = random_delays(count, seed)
    rings = all_rings(count)
    assert total_ns(delays, least_total(delays)) == pytest.approx(min(total_ns(delays, ring) for ring in rings))
    best = min(longest_ns(delays, ring) for ring in rings)
    found = least_longest(delays)
    assert longest_ns(delays, found) == pytest.approx(best)
    among = min(total_ns(delays, ring) for ring in rings if longest_ns(delays, ring) <= best * (1 + 1e-12))
    assert total_ns(delays, found) == pytest.approx(among)


@pytest.mark.parametrize("solve", [least_total, least_longest])
@pytest.mark.parametrize("count", [5, 11, 12, 40])
def test_a_shuffled_ring_is_found_again(solve, count: int) -> None:
    place = np.random.default_rng(3).permutation(count)
    angle = 2 * np.pi * place / count
    delays = np.abs(np.exp(1j * angle)[:, None] - np.exp(1j * angle)[None]) * 1e7
    steps = np.diff(place[solve(delays)]) % count
    assert set(steps.tolist()) in ({1}, {count - 1})


def test_heuristic_tours_are_near_the_best(monkeypatch) -> None:
    ratios = []
    for seed in range(20):
        delays = random_delays(10, seed)
        best = total_ns(delays, least_total(delays))
        with monkeypatch.context() as patch:
            patch.setattr(planned_ways, "EXACT_UP_TO", 3)
            ratios.append(total_ns(delays, least_total(delays)) / best)
    assert min(ratios) >= 1 - 1e-9
    assert np.mean(ratios) < 1.05


def test_pairs_without_a_path_are_avoided() -> None:
    delays = np.full((6, 6), np.inf)
    for place in range(6):
        delays[place, (place + 1) % 6] = delays[(place + 1) % 6, place] = 1e7
    assert least_total(delays) == list(range(6))


def test_one_ring_has_one_form() -> None:
    delays = random_delays(9, 5)
    ring = least_total(delays)
    assert ring[0] == 0
    assert ring[1] < ring[-1]
