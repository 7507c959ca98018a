"""Outlines of the continents, coarse, for maps that are drawn without a network."""

from __future__ import annotations

import json
from functools import lru_cache
from importlib.resources import files

import numpy as np


@lru_cache(maxsize=1)
def land_outlines_deg() -> tuple[np.ndarray, ...]:
    """Rings of (longitude, latitude) in degrees, each of shape (V, 2); those across 180 degrees come twice.

    Source: Natural Earth 110m land, public domain; simplified to 0.3 degrees (see ``source`` in land.json).
    """
    text = (files("isl_emu.show") / "land.json").read_text(encoding="utf-8")
    rings = [np.array(ring) for ring in json.loads(text)["rings"]]
    return tuple(ring + [turn, 0] for ring in rings for turn in (-360, 0, 360) if _is_on_map(ring[:, 0] + turn))


def _is_on_map(longitude_deg: np.ndarray) -> bool:
    return bool(longitude_deg.max() > -180 and longitude_deg.min() < 180)
