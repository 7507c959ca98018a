"""Random numbers by key: the same for the same seed and key, whatever else was drawn before.

A process that draws by (seed, process, satellites, count) neither disturbs others nor depends on how time is cut into
chunks. The mixing function is SplitMix64's.

Source: G. Steele, D. Lea, C. Flood, Fast splittable pseudorandom number generators, OOPSLA 2014.
"""

from __future__ import annotations

import zlib

import numpy as np

from isl_emu.arrays import Floats, Ints

GOLDEN_GAMMA = np.uint64(0x9E37_79B9_7F4A_7C15)  # odd, next to 2^64 / golden ratio; Steele et al., section 4
MIX_1, MIX_2 = np.uint64(0xBF58_476D_1CE4_E5B9), np.uint64(0x94D0_49BB_1331_11EB)  # Stafford's variant 13, the same
DOUBLE_BITS = 53


def uniform(seed: int, process: str, *keys: Ints | int) -> Floats:
    """Numbers evenly spread over the open interval (0, 1), float64, of the keys' common shape.

    Args:
        seed: the scenario's.
        process: what they are for; different names give independent numbers.
        keys: whole numbers that tell one draw from another, arrays or scalars that broadcast.
    """
    words = [np.asarray(key).astype(np.uint64) for key in keys]
    state = np.full(np.broadcast_shapes(*(word.shape for word in words)), _mixed(np.uint64(seed % 2**64)))
    for word in (np.uint64(zlib.crc32(process.encode())), *words):
        state = _mixed(state ^ (word + GOLDEN_GAMMA))
    numbers: Floats = ((state >> np.uint64(64 - DOUBLE_BITS)).astype(np.float64) + 0.5) / 2.0**DOUBLE_BITS
    return numbers


def exponential(mean: Floats | float, u: Floats) -> Floats:
    """Exponentially distributed numbers with the given mean, from uniform ones."""
    return -mean * np.log(u)


def _mixed(word: Ints | np.uint64) -> Ints:
    with np.errstate(over="ignore"):
        word = word + GOLDEN_GAMMA
        word = (word ^ (word >> np.uint64(30))) * MIX_1
        word = (word ^ (word >> np.uint64(27))) * MIX_2
        mixed: Ints = word ^ (word >> np.uint64(31))
    return mixed
