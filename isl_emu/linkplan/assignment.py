"""Which terminals take which links, first come, first served, in an order of preference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from isl_emu.linkplan.terminals import NONE


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
