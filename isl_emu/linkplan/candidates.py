"""Which pairs of satellites point lasers at each other; whether a link is up is decided instant by instant."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from isl_emu.arrays import Bools, Ints
from isl_emu.geometry.elements import shell_inclination_rad
from isl_emu.geometry.walker import phase_spacing_rad, plane_spacing_rad, slot_spacing_rad
from isl_emu.linkplan.plan import LinkKind
from isl_emu.scenario.lasers import LaserTerms
from isl_emu.scenario.model import Shell, Walker

PAIR_SHIFT = 32  # a pair of nodes as one number: a x 2^32 + b
ARRAYS = {  # of LaserCandidates, in its order, with their types
    "a": "i4", "b": "i4", "kind": "u1", "max_range_km": "f8", "grazing_altitude_km": "f8", "rate_bit_s": "i8",
    "return_rate_bit_s": "i8", "queue_ns": "i8", "term": "i4",
}  # fmt: skip


@dataclass(frozen=True)
class LaserCandidates:
    """C pairs of satellites with laser terminals that track each other; all arrays have shape (C,).

    No pair occurs twice, and a < b.
    """

    a: np.ndarray  # int32, node index
    b: np.ndarray  # int32, node index
    kind: np.ndarray  # uint8, LinkKind
    max_range_km: np.ndarray  # float64; inf where only the Earth limits the range
    grazing_altitude_km: np.ndarray  # float64, the lowest that the line may pass over the Earth
    rate_bit_s: np.ndarray  # int64, from a to b; with a budget the most
    return_rate_bit_s: np.ndarray  # int64, from b to a; with a budget the most
    queue_ns: np.ndarray  # int64
    term: np.ndarray  # int32, index into `terms`
    terms: tuple[LaserTerms, ...]  # all that limits these links and says how good they are

    def __post_init__(self) -> None:
        for name in ARRAYS:
            getattr(self, name).setflags(write=False)

    def limited(self, name: str) -> bool:
        """Whether any of the terms has a limit."""
        return any(getattr(terms, name) is not None for terms in self.terms)

    def limit(self, name: str, absent: float) -> np.ndarray:
        """One number of each candidate's terms, or `absent` where they do not have it; float64, shape (C,)."""
        values = [getattr(terms, name) for terms in self.terms]
        limits = np.array([absent if value is None else value for value in values], dtype=np.float64)
        return np.asarray(limits[self.term])

    def only(self, chosen: np.ndarray) -> LaserCandidates:
        """Those that an index or bool array selects."""
        return replace(self, **{name: getattr(self, name)[chosen] for name in ARRAYS})


def joined_candidates(parts: Sequence[LaserCandidates]) -> LaserCandidates:
    """One record of several; of a pair that occurs twice the first is kept."""
    if not parts:
        return LaserCandidates(**{name: np.empty(0, dtype=kind) for name, kind in ARRAYS.items()}, terms=())
    place: dict[int, int] = {}  # the same terms are listed once, however often candidates are joined
    for part in parts:
        for one in part.terms:
            place.setdefault(id(one), len(place))
    numbers = [np.array([place[id(one)] for one in part.terms], dtype=np.int32)[part.term] for part in parts]
    parts = [replace(part, term=number) for part, number in zip(parts, numbers)]
    terms = tuple({id(one): one for part in parts for one in part.terms}.values())
    arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in ARRAYS}
    joined = LaserCandidates(**arrays, terms=terms)
    _, kept = np.unique(pair_keys(joined.a, joined.b), return_index=True)
    return joined.only(kept)


def pair_keys(a: Ints, b: Ints) -> Ints:
    """Pairs of nodes as one number each, int64, that orders them by (a, b)."""
    return a.astype(np.int64) << PAIR_SHIFT | b


def key_ends(keys: Ints) -> tuple[Ints, Ints]:
    """Both nodes of pairs as numbers, int64."""
    return keys >> PAIR_SHIFT, keys & (2**PAIR_SHIFT - 1)


def each_once(keys: Ints) -> Ints:
    """Pairs as numbers, ascending, without repetition; as `numpy.unique`, in a third of its time for some thousands."""
    keys = np.sort(keys)
    return keys[np.diff(keys, prepend=-1) > 0]


def among(keys: Ints, others: Ints) -> Bools:
    """Which of some pairs as numbers are among others; as `numpy.isin`, in a tenth of its time for some hundreds."""
    if not len(others):
        return np.zeros(len(keys), dtype=bool)
    others = np.sort(others)
    found: Bools = others[np.searchsorted(others, keys).clip(max=len(others) - 1)] == keys
    return found


def constellation_candidates(shells: Sequence[Shell]) -> LaserCandidates:
    """The candidates that the patterns of all shells without terminals make; their terminals are ideal ones."""
    parts, first = [], 0
    for shell in shells:
        if not shell.lasers.terminal:
            a, b, kind = shell_pairs(shell)
            parts.append(laser_candidates(a + first, b + first, kind, shell.lasers))
        first += shell.count
    return joined_candidates(parts)


def laser_candidates(a: np.ndarray, b: np.ndarray, kind: np.ndarray, lasers: LaserTerms) -> LaserCandidates:
    """Given pairs of satellites, all with the same terminals."""
    same = np.ones(len(a))
    return LaserCandidates(
        a=np.minimum(a, b).astype(np.int32),
        b=np.maximum(a, b).astype(np.int32),
        kind=np.array(kind, dtype=np.uint8),
        max_range_km=same * (math.inf if lasers.max_range_km is None else lasers.max_range_km),
        grazing_altitude_km=same * lasers.grazing_altitude_km,
        rate_bit_s=np.full(len(a), lasers.rate_bit_s, dtype=np.int64),
        return_rate_bit_s=np.full(len(a), lasers.backward_rate_bit_s, dtype=np.int64),
        queue_ns=np.full(len(a), lasers.queue_ns, dtype=np.int64),
        term=np.zeros(len(a), dtype=np.int32),
        terms=(lasers,),
    )


def shell_pairs(shell: Shell) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The pairs of one shell by its laser topology, as indices within the shell.

    Returns:
        a, b (int64) and LinkKind (uint8), each of shape (C,), ordered by (a, b) with a < b.
    """
    none = np.empty((0, 2), dtype=np.int64)
    walker, lasers = shell.walker, shell.lasers
    intra, inter = none, none
    if walker and lasers.topology in ("ring", "+grid"):
        intra = ring_pairs(walker)
    if walker and lasers.topology == "+grid":
        inter = inter_plane_pairs(walker, shell_inclination_rad(shell), lasers.shift)
    pairs = np.sort(np.concatenate([intra, inter]), axis=1)
    kind = np.repeat(np.array([LinkKind.INTRA_PLANE, LinkKind.INTER_PLANE], dtype=np.uint8), [len(intra), len(inter)])
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    return pairs[order, 0], pairs[order, 1], kind[order]


def ring_pairs(walker: Walker) -> np.ndarray:
    """Fore and aft neighbours in each plane, shape (C, 2); two in a plane share one link, a lone one has none."""
    slots = walker.slots
    after = {1: 0, 2: 1}.get(slots, slots)
    slot = np.arange(after)
    pairs = np.stack([slot, (slot + 1) % slots], axis=1)
    first = np.arange(walker.planes) * slots
    return np.asarray(first[:, np.newaxis, np.newaxis] + pairs).reshape(-1, 2)


def inter_plane_pairs(walker: Walker, inclination_rad: float, shift: int | None = None) -> np.ndarray:
    """One neighbour in each adjacent plane, shape (C, 2).

    A slot's neighbour is `shift` slots ahead, or without a shift the nearest, by `nearest_slot_shift`. The last plane
    of a delta is adjacent to the first, where slots count on by f: p steps of the phasing are f slots. If phases
    alternate between an odd number of planes, these two have the same. A star's outer planes move against each other,
    so nothing crosses that seam. Two planes are adjacent once.
    """
    signs = [-1 if walker.alternate and plane % 2 else 1 for plane in range(walker.planes)]  # of the next one's phase
    if walker.alternate and walker.planes % 2:
        signs[-1] = 0
    nearest = {sign: nearest_slot_shift(walker, inclination_rad, sign) if shift is None else shift for sign in signs}
    shifts = [nearest[sign] for sign in signs]
    pairs = [_between(walker, plane, plane + 1, shifts[plane]) for plane in range(walker.planes - 1)]
    if walker.pattern == "delta" and walker.planes > 2:
        counted_on = 0 if walker.alternate else walker.phasing
        pairs.append(_between(walker, walker.planes - 1, 0, shifts[-1] + counted_on))
    return np.concatenate(pairs) if pairs else np.empty((0, 2), dtype=np.int64)


def nearest_slot_shift(walker: Walker, inclination_rad: float, sign: int = 1) -> int:
    """How many slots ahead the nearest neighbour in the next plane is; `sign` -1 if that plane's phase is
    behind, 0 if it is the same.

    For two satellites on circular orbits, sin^2 of half the angle between them is a part that depends on their
    difference in argument of latitude, plus one that oscillates along the orbit and does not. So one shift is nearest
    on average and in the worst case alike: it makes the first part least. Of equals the smallest, then the one behind.

    Source: A. Ballard, Rosette constellations of Earth satellites, IEEE Transactions on Aerospace and Electronic
    Systems 16, 1980.
    """
    cos2, sin2 = math.cos(inclination_rad / 2) ** 2, math.sin(inclination_rad / 2) ** 2
    raan_rad = plane_spacing_rad(walker)

    def separation(shift: int) -> float:
        ahead_rad = sign * phase_spacing_rad(walker) + shift * slot_spacing_rad(walker)
        return (
            cos2**2 * math.sin((ahead_rad + raan_rad) / 2) ** 2
            + 2 * sin2 * cos2 * math.sin(ahead_rad / 2) ** 2
            + sin2**2 * math.sin((ahead_rad - raan_rad) / 2) ** 2
        )

    shifts = range(-(walker.slots // 2), walker.slots - walker.slots // 2)
    return min(shifts, key=lambda shift: (round(separation(shift), 12), abs(shift), shift))


def _between(walker: Walker, plane: int, next_plane: int, shift: int) -> np.ndarray:
    """Each slot of a plane with the one `shift` further in another, shape (S, 2)."""
    slot = np.arange(walker.slots)
    return np.stack([plane * walker.slots + slot, next_plane * walker.slots + (slot + shift) % walker.slots], axis=1)
