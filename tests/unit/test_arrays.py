"""Short cuts for small arrays give what numpy's own functions give, to the bit."""

from __future__ import annotations

import numpy as np
import pytest

from isl_emu.arrays import cross
from isl_emu.linkplan.candidates import among, each_once


@pytest.mark.parametrize("shapes", [((3,), (3,)), ((7, 3), (7, 3)), ((2, 5, 4, 3), (5, 4, 3))])
def test_vector_products(shapes):
    a, b = (np.random.default_rng(1).normal(size=shape) for shape in shapes)
    assert np.array_equal(cross(a, b), np.cross(a, b))


@pytest.mark.parametrize(("count", "others"), [(0, 0), (0, 5), (5, 0), (40, 30), (300, 1)])
def test_pairs_among_others_and_each_once(count, others):
    draw = np.random.default_rng(2)
    keys, known = draw.integers(0, 50, count), draw.integers(0, 50, others)
    assert np.array_equal(among(keys, known), np.isin(keys, known))
    assert np.array_equal(each_once(keys), np.unique(keys))
