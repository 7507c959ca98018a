"""The laser terminals of all satellites, and which of them take which links, first come, first served.

Of each is known where it is mounted, what it sees, and how fast it turns and acquires.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
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
FIRST_BLOCK = 512  # candidates that are looked at together
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
    preference: Callable[[np.ndarray], np.ndarray]  # of some candidates (U,), how well each terminal of their ends
    # suits, float64 (U, 2, M); -inf where it does not
    taken: np.ndarray  # bool (T,), terminals that are not to be had
    left: np.ndarray  # int64 (N,), links that each satellite may have more; not more than terminals that are to be had


def assign(choice: Choice, of_satellite: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Give terminals to links.

    Each candidate in turn takes the best terminal that is left at each end; one that is engaged keeps its own if nobody
    took them before. New links rather take terminals that no engaged link holds.

    Candidates are looked at in blocks of their order, each four times as long as the one before: satellites have all
    their links soon, and who comes later is then dropped by a count, without asking what suits whom. In a block a turn
    concerns its two satellites alone, so all candidates that are the first of those left at both ends have theirs at
    once, in rounds. Terminals are only ever taken, so whoever finds none that suits is out.

    Args:
        choice: the candidates.
        of_satellite: each satellite's terminals, (N, M).

    Returns:
        The new links as indices into the candidates (W,), their terminals (W, 2), and the engaged links that must give
        way (D,).
    """
    taken, left = choice.taken.copy(), choice.left.copy()
    is_new = choice.held[:, 0] == NONE
    holder = np.full(len(taken), NONE)  # the candidate that holds a terminal until its turn
    holder[choice.held[~is_new]] = np.flatnonzero(~is_new)[:, np.newaxis]
    given = choice.held.copy()
    first = np.empty(len(left), dtype=np.int64)
    end, size = 0, FIRST_BLOCK
    while end < len(given):
        waiting = np.arange(end, min(end + size, len(given)))
        end, size = end + size, 4 * size
        waiting = waiting[~is_new[waiting] | (left[choice.ends[waiting]] > 0).all(axis=1)]
        ends, new = choice.ends[waiting], is_new[waiting]
        table = of_satellite[ends]
        preference = np.full(table.shape, -np.inf)
        preference[new] = choice.preference(waiting[new])
        while len(waiting):
            open_ = np.isfinite(preference) & ~taken[table]
            can = ~new | (open_.any(axis=2) & (left[ends] > 0)).all(axis=1)
            first[ends[can][::-1].ravel()] = np.repeat(waiting[can][::-1], 2)  # of equal indices the last is assigned
            on_turn = can & (first[ends] == waiting[:, np.newaxis]).all(axis=1)
            asks = on_turn & new
            given[waiting[asks]] = _best(preference[asks], open_[asks], table[asks], holder, waiting[asks])
            turn = waiting[on_turn]
            served = (~taken[given[turn]] & (left[ends[on_turn]] > 0)).all(axis=1)
            given[turn[~served]] = NONE
            taken[given[turn[served]]] = True
            left[ends[on_turn][served]] -= 1
            stays = can & ~on_turn
            waiting, ends, new, table, preference = (x[stays] for x in (waiting, ends, new, table, preference))
    has = given[:, 0] != NONE
    winners = np.flatnonzero(is_new & has)
    return winners, given[winners], np.flatnonzero(~is_new & ~has)


def _best(
    preference: np.ndarray, open_: np.ndarray, table: np.ndarray, holder: np.ndarray, turn: np.ndarray
) -> np.ndarray:
    """The best of the open terminals of each end, rather one that nobody holds, as there is one; shape (U, 2)."""
    at_ease = open_ & (holder[table] <= turn[:, np.newaxis, np.newaxis])
    usable = np.where(at_ease.any(axis=2, keepdims=True), at_ease, open_)
    best = np.where(usable, preference, -np.inf).argmax(axis=2)[..., np.newaxis]
    return np.take_along_axis(table, best, axis=2)[..., 0]
