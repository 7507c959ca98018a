"""Vectors in arrays: the last axis holds x, y and z."""

from __future__ import annotations

import numpy as np

from isl_emu.arrays import Floats


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
