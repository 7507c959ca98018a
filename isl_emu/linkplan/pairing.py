"""Who may be linked with whom: the pairings of terminals, and where their candidate links come from.

A pairing is *fixed* (its candidates never change: ring, +grid, a list), a *function* (a user's, asked again at each
interval) or *nearest* (candidates are looked for around satellites whose terminals are to be decided).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial import cKDTree

from isl_emu.errors import ScenarioError
from isl_emu.linkplan.candidates import (
    LaserCandidates,
    constellation_candidates,
    each_once,
    joined_candidates,
    key_ends,
    laser_candidates,
    pair_keys,
    shell_pairs,
)
from isl_emu.linkplan.constraints import Ephemeris
from isl_emu.linkplan.plan import LinkKind
from isl_emu.scenario.lasers import LaserTerms
from isl_emu.scenario.model import Scenario, Shell
from isl_emu.scenario.user_functions import planning_function

NEIGHBOURS = 24  # how many of the nearest satellites a nearest pairing looks at; more than a satellite has terminals
Function = Callable[[tuple[str, ...], np.ndarray, np.ndarray], np.ndarray]
"""A user's own pairing: from the names of N satellites, their positions in km and velocities in km/s in TEME, both of
shape (N, 3), to the pairs to link, whole numbers of shape (C, 2) that index the names."""


@dataclass(frozen=True)
class Places:
    """Where each of N satellites belongs: numbers that differ between shells and between planes, shape (N,)."""

    shell: np.ndarray  # int64
    plane: np.ndarray  # int64; a satellite outside any pattern has one of its own

    def kind(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """What links between given satellites are, LinkKind, uint8."""
        within = np.where(self.plane[a] == self.plane[b], LinkKind.INTRA_PLANE, LinkKind.INTER_PLANE)
        return np.where(self.shell[a] == self.shell[b], within, LinkKind.INTER_SHELL).astype(np.uint8)


def places_of(scenario: Scenario) -> Places:
    """The places of all satellites of a scenario."""
    shells, planes, first_plane = [], [], 0
    for number, shell in enumerate(scenario.shell):
        plane = np.arange(shell.count) // (shell.walker.slots if shell.walker else 1)
        shells.append(np.full(shell.count, number))
        planes.append(plane + first_plane)
        first_plane += int(plane[-1]) + 1
    return Places(np.concatenate(shells).astype(np.int64), np.concatenate(planes).astype(np.int64))


@dataclass(frozen=True)
class Pairing:
    """Links of one kind of terms between the satellites of one group, or from one group to another.

    Exactly one of `fixed` and `function` is given, or neither: then it is a nearest pairing.
    """

    terms: LaserTerms
    names: tuple[str, ...]  # of all N satellites
    places: Places
    group: np.ndarray  # int64, satellites; ascending
    other: np.ndarray | None  # int64, those of the other group; None for links within the group
    between_shells: bool = False
    most: int | None = None  # links of a satellite at a time; None: as many as it has terminals
    fixed: LaserCandidates | None = None
    function: Function | None = None
    cut_seam: bool = False  # no new link between satellites of different planes that fly against each other

    @property
    def looks_around(self) -> bool:
        """Whether it is a nearest pairing."""
        return self.fixed is None and self.function is None

    def links(self, keys: np.ndarray) -> LaserCandidates:
        """Pairs (from `pair_keys`) with the terms of this pairing, in their order."""
        a, b = key_ends(keys)
        return laser_candidates(a, b, self.places.kind(a, b), self.terms)

    def asked(self, sky: Ephemeris) -> LaserCandidates:
        """The candidates that the user's function gives at an instant.

        Raises:
            ScenarioError: it raised, or returned no pairs of indices.
        """
        assert self.function is not None
        members = self.group if self.other is None else np.concatenate([self.group, self.other])
        names = tuple(self.names[member] for member in members)
        pairs = _function_pairs(self.function, names, sky.r_km[0, members], sky.v_km_s[0, members])
        return self.links(_pairs(members[pairs[:, 0]], members[pairs[:, 1]]))

    def around(self, sky: Ephemeris, seekers: np.ndarray, left: np.ndarray, within_km: float = math.inf) -> np.ndarray:
        """The pairs of given satellites and their nearest neighbours at an instant that both want a link.

        Args:
            sky: one instant.
            seekers: who looks around, bool, shape (N,).
            left: how many links each satellite may have, shape (N,).
            within_km: farther neighbours are left out.

        Returns:
            Pairs (from `pair_keys`), ascending, each once, shape (C,).
        """
        wants = left > 0
        seeks, reach_km = seekers & wants, min(self._reach_km, within_km)
        if self.other is None:
            a, b = _near(sky.r_km[0], self.group[seeks[self.group]], self.group, reach_km)
        else:
            there = _near(sky.r_km[0], self.group[seeks[self.group]], self.other, reach_km)
            back = _near(sky.r_km[0], self.other[seeks[self.other]], self.group, reach_km)
            a, b = (np.concatenate(ends) for ends in zip(there, back, strict=True))
        kept = wants[b]
        a, b = a[kept], b[kept]
        if self.cut_seam and len(a):
            along = np.einsum("ci,ci->c", sky.v_km_s[0, a], sky.v_km_s[0, b])
            kept = (along > 0) | (self.places.plane[a] == self.places.plane[b])
            a, b = a[kept], b[kept]
        return _pairs(a, b)

    @property
    def _reach_km(self) -> float:
        return math.inf if self.terms.max_range_km is None else self.terms.max_range_km


def pairings_of(scenario: Scenario) -> list[Pairing]:
    """The pairings of all shells that have terminals, and of those between shells, in the order of the scenario."""
    names, places, found = scenario.satellite_names, places_of(scenario), []
    groups, first = {}, 0
    for shell in scenario.shell:
        groups[shell.name] = np.arange(first, first + shell.count)
        if shell.lasers.terminal:
            found += _shell_pairings(shell, Pairing(shell.lasers, names, places, groups[shell.name], None))
        first += shell.count
    for table in scenario.inter_shell:
        group, other = (groups[name] for name in table.between)
        pairing = Pairing(table, names, places, group, other, between_shells=True, most=table.links)
        found.append(_by_topology(pairing, table.topology))
    return found


def ideal_candidates(scenario: Scenario, sky: Callable[[], Ephemeris]) -> LaserCandidates:
    """The candidates of all shells without terminals: by pattern, by list, or by a user's function, asked once.

    Args:
        sky: gives the satellites at the first instant.
    """
    names, places, parts = scenario.satellite_names, places_of(scenario), [constellation_candidates(scenario.shell)]
    first = 0
    for shell in scenario.shell:
        group = np.arange(first, first + shell.count)
        if not shell.lasers.terminal and shell.lasers.topology not in ("ring", "+grid", "none"):
            pairing = _by_topology(Pairing(shell.lasers, names, places, group, None), shell.lasers.topology)
            parts.append(pairing.asked(sky()) if pairing.fixed is None else pairing.fixed)
        first += shell.count
    return joined_candidates(parts)


def _shell_pairings(shell: Shell, bare: Pairing) -> list[Pairing]:
    lasers, walker = shell.lasers, shell.walker
    star = walker is not None and walker.pattern == "star"
    if lasers.topology in ("ring", "+grid"):
        a, b, kind = shell_pairs(shell)
        first = bare.group[0]
        pairings = [replace(bare, fixed=laser_candidates(a + first, b + first, kind, lasers))]
        if walker and star and lasers.topology == "+grid" and lasers.cross_seam and walker.planes > 1:
            first_plane, last_plane = bare.group[: walker.slots], bare.group[-walker.slots :]
            pairings.append(replace(bare, group=last_plane, other=first_plane, most=1))
        return pairings
    if lasers.topology == "none":
        return []
    return [replace(_by_topology(bare, lasers.topology), cut_seam=star and not lasers.cross_seam)]


def _by_topology(bare: Pairing, topology: str) -> Pairing:
    if topology == "nearest":
        return bare
    if topology == "pairs":
        return replace(bare, fixed=listed_candidates(bare.terms, bare.names, bare.places))
    return replace(bare, function=own_topology(topology))


def own_topology(name: str) -> Function:
    """The function of a user's own that a scenario names as a topology.

    Raises:
        ScenarioError: it cannot be imported, or does not take three arguments.
    """
    return planning_function(name, "lasers.topology", 3)


def listed_candidates(terms: LaserTerms, names: tuple[str, ...], places: Places) -> LaserCandidates:
    """The candidates that a list of pairs of names makes."""
    number = {name: index for index, name in enumerate(names)}
    ends = np.sort([[number[name] for name in pair] for pair in terms.pairs], axis=1)
    return laser_candidates(ends[:, 0], ends[:, 1], places.kind(ends[:, 0], ends[:, 1]), terms)


def _pairs(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pairs of satellites with their ends in any order as keys, ascending, each once."""
    return each_once(pair_keys(np.minimum(a, b), np.maximum(a, b)))


def _function_pairs(function: Function, names: tuple[str, ...], r_km: np.ndarray, v_km_s: np.ndarray) -> np.ndarray:
    pairs = np.asarray(function(names, r_km, v_km_s))
    if pairs.size == 0:
        return np.empty((0, 2), dtype=np.int64)
    shaped = pairs.ndim == 2 and pairs.shape[1] == 2 and pairs.dtype.kind in "iu"
    if not shaped or pairs.min() < 0 or pairs.max() >= len(names) or (pairs[:, 0] == pairs[:, 1]).any():
        raise ScenarioError(
            f"lasers.topology: the function returned {pairs.dtype} of shape {pairs.shape}, but pairs are whole numbers "
            f"of shape (C, 2), different ones from 0 to {len(names) - 1}; let it return indices of the names"
        )
    return pairs.astype(np.int64)


def _near(r_km: np.ndarray, seekers: np.ndarray, group: np.ndarray, reach_km: float) -> tuple[np.ndarray, np.ndarray]:
    """Each seeker with its nearest in the group, as two arrays of satellites."""
    seekers, group = (those[np.isfinite(r_km[those, 0])] for those in (seekers, group))
    if not len(seekers) or not len(group):
        return seekers[:0], seekers[:0]
    count = min(NEIGHBOURS + 1, len(group))  # a seeker within the group is its own nearest
    _, found = cKDTree(r_km[group]).query(r_km[seekers], k=np.arange(1, count + 1), distance_upper_bound=reach_km)
    row, column = np.nonzero(found < len(group))
    a, b = seekers[row], group[found[row, column]]
    return a[a != b], b[a != b]
