"""Names for the types of arrays by what they hold, and vectors in them: the last axis holds x, y and z."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.integer[Any]]
Bools = npt.NDArray[np.bool_]


def dot(a: Floats, b: Floats) -> Floats:
    """Scalar products of vectors of shape (..., 3), shape (...)."""
    product: Floats = np.einsum("...i,...i", a, b)
    return product


def length(xyz: Floats) -> Floats:
    """Lengths of vectors of shape (..., 3), shape (...)."""
    lengths: Floats = np.sqrt(dot(xyz, xyz))
    return lengths


def unit(xyz: Floats) -> Floats:
    """Vectors of shape (..., 3) scaled to length 1; nan for one without length or direction."""
    with np.errstate(invalid="ignore"):
        scaled: Floats = xyz / length(xyz)[..., np.newaxis]
    return scaled


def cross(a: Floats, b: Floats) -> Floats:
    """Vector products of vectors of shape (..., 3): `numpy.cross` to the bit, and sooner for short arrays."""
    product: Floats = np.empty(np.broadcast_shapes(a.shape, b.shape))
    for axis in range(3):
        after, last = (axis + 1) % 3, (axis + 2) % 3
        product[..., axis] = a[..., after] * b[..., last] - a[..., last] * b[..., after]
    return product
