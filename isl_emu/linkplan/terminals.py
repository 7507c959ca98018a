"""The laser terminals of all satellites, and which of them take which links, first come, first served.

Of each is known where it is mounted, what it sees, and how fast it turns and acquires.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from isl_emu.arrays import Floats
from isl_emu.scenario.model import Shell

AXES = {  # fore, starboard, zenith
    "fore": (1, 0, 0), "aft": (-1, 0, 0), "starboard": (0, 1, 0), "port": (0, -1, 0), "zenith": (0, 0, 1),
    "nadir": (0, 0, -1), "free": (0, 0, 0),
}  # fmt: skip
AT_REST = (1.0, 0.0, 0.0)  # where a terminal without an axis points at first: fore
NONE = -1
EVERYWHERE = -1.0  # the least cosine of a free terminal, which no field of regard limits


@dataclass(frozen=True)
class Terminals:
    """T terminals, ordered by satellite; arrays have shape (T,) but where it says otherwise."""

    satellite: np.ndarray  # int64, node index
    axis: Floats  # float64 (T, 3), the mount's direction in the local orbital frame; zeros for a free one
    least_cos: np.ndarray  # float64, cosine of the field of regard's half-angle
    slew_rate_rad_s: np.ndarray  # float64; inf for one that turns in no time
    acquisition_ns: np.ndarray  # int64
    in_shell: np.ndarray  # bool, it serves links within its shell
    between_shells: np.ndarray  # bool, it serves links to other shells
    of_satellite: np.ndarray  # int64 (N, M), each satellite's terminals, filled up with NONE
    mount: tuple[str, ...]  # of each

    @property
    def rest(self) -> np.ndarray:
        """Where each points before its first link, shape (T, 3)."""
        mounted = self.axis.any(axis=1, keepdims=True)
        return np.where(mounted, self.axis, AT_REST)


def constellation_terminals(shells: Sequence[Shell]) -> Terminals:
    """The terminals of all satellites of all shells, in the order of the nodes."""
    satellites, types, mounts, first = [], [], [], 0
    for shell in shells:
        ours = [(terminal, mount) for terminal in shell.lasers.terminal for mount in terminal.mounts]
        satellites.append(np.repeat(np.arange(first, first + shell.count), len(ours)))
        types += [terminal for terminal, _ in ours] * shell.count
        mounts += [mount for _, mount in ours] * shell.count
        first += shell.count
    satellite = np.concatenate(satellites).astype(np.int64)
    starts = np.searchsorted(satellite, np.arange(first))
    place = np.arange(len(satellite)) - starts[satellite]
    of_satellite = np.full((first, int(place.max(initial=-1)) + 1), NONE, dtype=np.int64)
    of_satellite[satellite, place] = np.arange(len(satellite))
    rates_rad_s = [terminal.slew_rate_rad_s for terminal in types]
    return Terminals(
        satellite=satellite,
        axis=np.array([AXES[mount] for mount in mounts], dtype=np.float64).reshape(-1, 3),
        least_cos=np.array(
            [
                math.cos(terminal.field_of_regard_rad) if mount != "free" else EVERYWHERE
                for terminal, mount in zip(types, mounts, strict=True)
            ]
        ),
        slew_rate_rad_s=np.array([math.inf if rate is None else rate for rate in rates_rad_s]),
        acquisition_ns=np.array([terminal.acquisition_ns for terminal in types], dtype=np.int64),
        in_shell=np.array([terminal.serves != "inter-shell" for terminal in types], dtype=bool),
        between_shells=np.array([terminal.serves != "shell" for terminal in types], dtype=bool),
        of_satellite=of_satellite,
        mount=tuple(mounts),
    )


@dataclass(frozen=True)
class Choice:
    """C candidate links in the order in which they may choose, M terminals a satellite at most."""

    ends: np.ndarray  # int64 (C, 2), node indices
    held: np.ndarray  # int64 (C, 2), the terminals that a competing engaged link has; NONE otherwise
    preference: np.ndarray  # float64 (C, 2, M), how well each terminal of an end suits; -inf where it does not
    taken: np.ndarray  # bool (T,), terminals that are not to be had
    counts: np.ndarray  # int64 (N,), links that each satellite has besides
    most: int | None  # links that a satellite may have


def assign(choice: Choice, of_satellite: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Give terminals to links.

    Each candidate in turn takes the best terminal that is left at each end; one that is engaged keeps its own if nobody
    took them before. New links rather take terminals that no engaged link holds.

    Args:
        choice: the candidates.
        of_satellite: each satellite's terminals, (N, M).

    Returns:
        The new links as indices into the candidates (W,), their terminals (W, 2), and the engaged links that must give
        way (D,).
    """
    table = of_satellite[choice.ends]
    open_ = np.isfinite(choice.preference) & ~choice.taken[table]
    engaged = choice.held[:, 0] != NONE
    hopeful = np.flatnonzero(engaged | open_.any(axis=2).all(axis=1))
    best_first = np.argsort(-choice.preference[hopeful], axis=2, kind="stable")
    ranked = np.take_along_axis(table[hopeful], best_first, axis=2)
    ranked[~np.take_along_axis(open_[hopeful], best_first, axis=2)] = NONE
    return _served(choice, hopeful, ranked, of_satellite)


def _served(
    choice: Choice, hopeful: np.ndarray, ranked: np.ndarray, of_satellite: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`assign` by plain loops over what may still be served, with each end's terminals ranked, NONE for unusable."""
    taken, counts = choice.taken.tolist(), choice.counts.tolist()
    left = ((of_satellite != NONE) & ~choice.taken[of_satellite]).sum(axis=1).tolist()
    most = len(taken) if choice.most is None else choice.most
    held = choice.held[hopeful].tolist()
    contested = {terminal for own in held for terminal in own if terminal != NONE}
    winners, terminals, dropped = [], [], []
    for place, ((a, b), own) in enumerate(zip(choice.ends[hopeful].tolist(), held, strict=True)):
        is_new = own[0] == NONE
        served = None
        if counts[a] < most and counts[b] < most and left[a] and left[b]:
            served = [_best(options, taken, contested) for options in ranked[place].tolist()] if is_new else own
        if served and (NONE in served or taken[served[0]] or taken[served[1]]):
            served = None
        if not is_new:
            contested.difference_update(own)
        if served:
            taken[served[0]] = taken[served[1]] = True
            for end in (a, b):
                counts[end] += 1
                left[end] -= 1
        if served and is_new:
            winners.append(place)
            terminals.append(served)
        elif not (served or is_new):
            dropped.append(place)
    as_index = [hopeful[np.array(found, dtype=np.int64)] for found in (winners, dropped)]
    return as_index[0], np.array(terminals, dtype=np.int64).reshape(-1, 2), as_index[1]


def _best(options: list[int], taken: list[bool], contested: set[int]) -> int:
    """The first terminal that is left, rather one that nobody holds; NONE if there is none."""
    fallback = NONE
    for terminal in options:
        if terminal != NONE and not taken[terminal]:
            if terminal not in contested:
                return terminal
            fallback = terminal if fallback == NONE else fallback
    return fallback
