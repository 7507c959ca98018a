"""Pointing, acquisition and tracking: which terminals serve which link, from instant to instant.

A terminal serves one link at a time. A link that becomes possible takes a free terminal at each end whose field of
regard covers the other; both turn to it (the angle from where each pointed last, over its slew rate; the longer of the
two), then search for each other (the longer acquisition time of the two), and then track. Whatever makes the link
impossible, or moves it out of a field of regard, frees both terminals at once; so does an outage that is over before
the next instant. Times are exact, but states are looked at only at instants: data flows from the first instant at which
slewing and acquisition are over. The target is taken where it is when the slew begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from isl_emu.arrays import Bools, dot, unit
from isl_emu.geometry.pointing import local_axes, local_direction
from isl_emu.linkplan.candidates import LaserCandidates, joined_candidates, pair_keys
from isl_emu.linkplan.constraints import Ephemeris
from isl_emu.linkplan.events import LinkState
from isl_emu.linkplan.lasers import LaserQuality
from isl_emu.linkplan.pairing import Pairing
from isl_emu.linkplan.plan import Rows, joined_rows
from isl_emu.linkplan.terminals import NONE, Choice, Terminals, assign
from isl_emu.units import NS_PER_S


@dataclass
class _Pool:
    """The C candidates of a pairing at the moment, and what their ends do; arrays have shape (C,)."""

    quality: LaserQuality
    state: np.ndarray  # uint8, LinkState
    terminals: np.ndarray  # int64 (C, 2), NONE while not engaged
    slewed_ns: np.ndarray  # int64, when the slew ends
    acquired_ns: np.ndarray  # int64, when the acquisition ends
    ahead: tuple[np.ndarray, np.ndarray] | None = None  # what is possible and how long, (K, C), for a chunk of instants

    @property
    def lasers(self) -> LaserCandidates:
        return self.quality.lasers

    @property
    def engaged(self) -> Bools:
        """Whether terminals are assigned."""
        engaged: Bools = self.terminals[:, 0] != NONE
        return engaged

    @property
    def keys(self) -> np.ndarray:
        return pair_keys(self.lasers.a, self.lasers.b)


@dataclass(frozen=True)
class Ahead:
    """What the sky alone says of K instants: the satellites' local orbital frames, and of each pairing whose candidates
    never change which of them are possible and how long they are."""

    axes: np.ndarray  # (K, N, 3, 3)
    possible: list[tuple[np.ndarray, np.ndarray] | None]  # bool and km, (K, C)


@dataclass(frozen=True)
class _Moment:
    """One instant of the sky."""

    sky: Ephemeris  # of one instant
    k: int
    i: int  # its place in the chunk
    t_ns: int
    axes: np.ndarray  # (N, 3, 3), the satellites' local orbital frames

    def directions(self, lasers: LaserCandidates) -> np.ndarray:
        """Where each end of the candidates sees the other, in its local frame, shape (C, 2, 3)."""
        r_km = self.sky.r_km[0]
        sight = unit(r_km[lasers.b] - r_km[lasers.a])
        return np.stack(
            [local_direction(self.axes[lasers.a], sight), local_direction(self.axes[lasers.b], -sight)], axis=1
        )


class Acquisition:
    """All links that terminals have to point at, followed through the instants of a run in order.

    Args:
        terminals: of all satellites.
        pairings: in the order in which they may take free terminals.
        seed: of outages and losses.
        duration_ns: of the run.
        step_ns: of the time grid.
    """

    def __init__(
        self, terminals: Terminals, pairings: Sequence[Pairing], seed: int, duration_ns: int, step_ns: int
    ) -> None:
        self._terminals, self._pairings = terminals, list(pairings)
        self._seed, self._duration_ns, self._step_ns = seed, duration_ns, step_ns
        self._busy = np.zeros(len(terminals.satellite), dtype=bool)
        self._pointing = terminals.rest.copy()
        self._pools = [self._pool(pairing.fixed or pairing.no_candidates) for pairing in self._pairings]
        self._fixed = [
            None if pairing.fixed is None else pool.quality for pairing, pool in zip(self._pairings, self._pools)
        ]
        self._used: list[LaserCandidates] = [pool.lasers for pool in self._pools]
        self._events: list[tuple[int, np.ndarray, np.ndarray]] = []  # instant, pairs, states
        self._engaged: list[tuple[int, np.ndarray, np.ndarray]] = []  # instant, pairs, their terminals (U, 2)

    def ahead(self, sky: Ephemeris) -> Ahead:
        """What depends on the sky alone, at any instants; in several threads at once too."""
        possible = [None if quality is None else quality.possible(sky) for quality in self._fixed]
        return Ahead(local_axes(sky.r_km, sky.v_km_s), possible)

    def rows(self, sky: Ephemeris, ahead: Ahead, first: int) -> list[Rows]:
        """The links that track at the next instants, which begin with instant `first`, and what is `ahead` of them."""
        for pool, possible in zip(self._pools, ahead.possible, strict=True):
            pool.ahead = possible
        found: list[Rows] = []
        for i, t_ns in enumerate(sky.t_ns.tolist()):
            found += self._instant(_Moment(sky.at(i), first + i, i, t_ns, ahead.axes[i]))
        return [joined_rows(found)] if found else []

    def links(self) -> LaserCandidates:
        """All pairs that were ever pointed at, and the fixed ones; for what is the same for a link at all instants."""
        return joined_candidates(self._used)

    def events(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """All changes of state so far: instant (int64), pair (a x 2^32 + b) and LinkState, ordered by pair and instant.

        Of several at one instant the last counts, and only if it changes anything.
        """
        if not self._events:
            return (np.empty(0, dtype=np.int64),) * 2 + (np.empty(0, dtype=np.uint8),)
        k = np.concatenate([np.full(len(pairs), k) for k, pairs, _ in self._events]).astype(np.int64)
        pair, state = (np.concatenate([event[part] for event in self._events]) for part in (1, 2))
        order = np.lexsort((np.arange(len(k)), k, pair))
        k, pair, state = k[order], pair[order], state[order]
        last = np.append((k[1:] != k[:-1]) | (pair[1:] != pair[:-1]), True)
        k, pair, state = k[last], pair[last], state[last]
        before = np.append(np.uint8(LinkState.IDLE), state[:-1])
        before[np.append(True, pair[1:] != pair[:-1])] = LinkState.IDLE
        changed = state != before
        return k[changed], pair[changed], state[changed]

    def engagements(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """When links that are in use later got their terminals: instant, pair (a x 2^32 + b), terminals (E, 2)."""
        if not self._engaged:
            return np.empty(0, np.int64), np.empty(0, np.int64), np.empty((0, 2), np.int64)
        k = np.concatenate([np.full(len(pairs), k) for k, pairs, _ in self._engaged]).astype(np.int64)
        pair, terminals = (np.concatenate([engaged[part] for engaged in self._engaged]) for part in (1, 2))
        return k, pair, terminals

    def _instant(self, now: _Moment) -> list[Rows]:
        seen = [self._follow(number, now) for number in range(len(self._pools))]
        for number, (possible, distance_km, lost) in enumerate(seen):
            seen[number] = (*self._choose(number, now, possible, distance_km, lost), lost)
        rows = []
        for pool, (_, distance_km, _) in zip(self._pools, seen, strict=True):
            up = np.flatnonzero(pool.state == LinkState.TRACKING)
            if len(up):
                rows.append(pool.quality.rows(np.full(len(up), now.k), up, distance_km[up], np.full(len(up), now.t_ns)))
        return rows

    def _follow(self, number: int, now: _Moment) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Free what is lost and move on what is engaged; what is possible, how long it is, and what was lost."""
        pool = self._pools[number]
        possible, distance_km = self._possible(pool, now)
        engaged = np.flatnonzero(pool.engaged)
        directions, held = now.directions(pool.lasers.only(engaged)), pool.terminals[engaged]
        covered = self._covers(held, directions).all(axis=1)
        kept = possible[engaged] & covered & ~pool.quality.broken(now.sky, self._step_ns)[0, engaged]
        self._pointing[held[kept]] = directions[kept]
        lost = engaged[~kept]
        self._free(pool, lost)
        self._set(pool, lost, np.full(len(lost), LinkState.LOST), now.k)
        self._advance(pool, engaged[kept], now)
        return possible, distance_km, lost

    def _possible(self, pool: _Pool, now: _Moment) -> tuple[np.ndarray, np.ndarray]:
        if pool.ahead is not None:
            return pool.ahead[0][now.i], pool.ahead[1][now.i]
        possible, distance_km = pool.quality.possible(now.sky)
        return possible[0], distance_km[0]

    def _covers(self, terminals: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """Whether terminals of any shape (...) see in directions (..., 3)."""
        covered: Bools = dot(self._terminals.axis[terminals], directions) >= self._terminals.least_cos[terminals]
        return covered

    def _advance(self, pool: _Pool, which: np.ndarray, now: _Moment) -> None:
        """Links whose slew or acquisition is over are acquiring or tracking."""
        state = np.full(len(which), LinkState.SLEWING)
        state[pool.slewed_ns[which] <= now.t_ns] = LinkState.ACQUIRING
        state[pool.acquired_ns[which] <= now.t_ns] = LinkState.TRACKING
        changed = state != pool.state[which]
        self._set(pool, which[changed], state[changed], now.k)

    def _choose(
        self, number: int, now: _Moment, possible: np.ndarray, distance_km: np.ndarray, lost: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Point free terminals at possible links; the pool's links may be others afterwards."""
        pairing, pool = self._pairings[number], self._pools[number]
        interval_ns = pairing.terms.interval_ns
        due = now.t_ns // interval_ns != (now.t_ns - self._step_ns) // interval_ns  # at the first instant too
        if pairing.looks_around:
            if due or len(lost):
                return self._look_around(number, now, lost, everybody=due)
            return possible, distance_km
        if pairing.function is not None and due:
            pool = self._renewed(number, pairing.asked(now.sky), now)
            possible, distance_km = self._possible(pool, now)
        waiting = np.flatnonzero(possible & ~pool.engaged)
        within_planes_first = np.argsort(pool.lasers.kind[waiting], kind="stable")
        self._engage(number, now, waiting[within_planes_first], keep=True)
        return possible, distance_km

    def _look_around(
        self, number: int, now: _Moment, lost: np.ndarray, *, everybody: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """Let the terminals of some or all satellites of a nearest pairing choose."""
        pairing, lasers = self._pairings[number], self._pools[number].lasers
        seekers = np.full(len(pairing.names), everybody)
        seekers[lasers.a[lost]] = seekers[lasers.b[lost]] = True
        pool = self._renewed(number, pairing.around(now.sky, seekers), now, keep_engaged=True)
        possible, distance_km = self._possible(pool, now)
        nearness_km = distance_km * np.where(pool.engaged, 1 - pairing.terms.hysteresis, 1.0)
        order = np.argsort(nearness_km, kind="stable")
        self._engage(number, now, order[possible[order]], keep=not everybody)
        engaged = np.flatnonzero(pool.engaged)
        self._pools[number] = _Pool(
            LaserQuality(pool.lasers.only(engaged), self._seed, self._duration_ns),
            pool.state[engaged], pool.terminals[engaged], pool.slewed_ns[engaged], pool.acquired_ns[engaged],
        )  # fmt: skip
        return possible[engaged], distance_km[engaged]

    def _engage(self, number: int, now: _Moment, order: np.ndarray, *, keep: bool) -> None:
        """Assign terminals in the given order of candidates; engaged ones are left alone, or (`keep` false) compete."""
        pairing, pool = self._pairings[number], self._pools[number]
        if keep:
            order = order[~pool.engaged[order]]
        if not len(order):
            return
        suits = self._terminals.between_shells if pairing.between_shells else self._terminals.in_shell
        taken = self._busy | ~suits
        if not keep:
            taken[pool.terminals[pool.engaged]] = False
        choice = Choice(
            ends=np.stack([pool.lasers.a[order], pool.lasers.b[order]], axis=1).astype(np.int64),
            held=pool.terminals[order],
            preference=lambda which: self._preference(pool.lasers.only(order[which]), now),
            taken=taken,
            counts=self._counts(pairing, pool, keep),
            most=pairing.most,
        )
        winners, terminals, dropped = assign(choice, self._terminals.of_satellite)
        gone = order[dropped]
        self._free(pool, gone)
        self._set(pool, gone, np.full(len(gone), LinkState.IDLE), now.k)
        self._point(number, order[winners], terminals, now)

    def _counts(self, pairing: Pairing, pool: _Pool, keep: bool) -> np.ndarray:
        """How many links of the pairing each satellite has that do not compete, int64 (N,)."""
        which = pool.engaged if keep else np.zeros(len(pool.state), dtype=bool)
        ends = np.concatenate([pool.lasers.a[which], pool.lasers.b[which]])
        return np.bincount(ends, minlength=len(pairing.names))

    def _preference(self, lasers: LaserCandidates, now: _Moment) -> np.ndarray:
        """How well each terminal of both ends suits, -inf where it does not, shape (C, 2, M).

        A terminal that looks straight at the other comes first, then mounted ones that look aside, then free ones; of
        free ones the one that turns least.
        """
        table, directions = self._terminals.of_satellite[np.stack([lasers.a, lasers.b], axis=1)], now.directions(lasers)
        mounted = self._terminals.axis[table].any(axis=-1)
        ahead = np.einsum("ceti,cei->cet", self._terminals.axis[table], directions)
        turned = np.einsum("ceti,cei->cet", self._pointing[table], directions)
        score = np.where(mounted, ahead, -2.0 + 0.5 * turned)
        usable = (table != NONE) & (ahead >= self._terminals.least_cos[table])
        return np.where(usable, score, -np.inf)

    def _point(self, number: int, which: np.ndarray, terminals: np.ndarray, now: _Moment) -> None:
        """Begin to slew towards links; at the start of a run they may be tracking already."""
        if not len(which):
            return
        pool, terms = self._pools[number], self._pairings[number].terms
        directions = now.directions(pool.lasers.only(which))
        cos = np.einsum("cei,cei->ce", self._pointing[terminals], directions)
        angle_rad = np.arccos(np.clip(cos, -1.0, 1.0))
        slew_ns = np.ceil(angle_rad / self._terminals.slew_rate_rad_s[terminals] * NS_PER_S).astype(np.int64)
        acquisition_ns = self._terminals.acquisition_ns[terminals]
        if now.k == 0 and terms.at_start == "tracking":
            slew_ns, acquisition_ns = np.zeros_like(slew_ns), np.zeros_like(slew_ns)
        if self._pairings[number].fixed is None:
            self._used.append(pool.lasers.only(which))
        pool.terminals[which] = terminals
        pool.slewed_ns[which] = now.t_ns + slew_ns.max(axis=1)
        pool.acquired_ns[which] = pool.slewed_ns[which] + acquisition_ns.max(axis=1)
        self._busy[terminals] = True
        self._engaged.append((now.k, pool.keys[which], terminals))
        self._pointing[terminals] = directions
        pool.state[which] = LinkState.IDLE
        self._advance(pool, which, now)

    def _free(self, pool: _Pool, which: np.ndarray) -> None:
        self._busy[pool.terminals[which]] = False
        pool.terminals[which] = NONE

    def _set(self, pool: _Pool, which: np.ndarray, state: np.ndarray, k: int) -> None:
        """Change states, and remember that as events."""
        if len(which):
            pool.state[which] = state
            self._events.append((k, pool.keys[which], state.astype(np.uint8)))

    def _renewed(self, number: int, lasers: LaserCandidates, now: _Moment, *, keep_engaged: bool = False) -> _Pool:
        """Put other candidates into a pool; engaged ones that are not among them are kept, or let go."""
        old = self._pools[number]
        engaged = np.flatnonzero(old.engaged)
        if keep_engaged:
            lasers = joined_candidates([old.lasers.only(engaged), lasers])
        else:
            gone = engaged[~np.isin(old.keys[engaged], pair_keys(lasers.a, lasers.b))]
            self._free(old, gone)
            self._set(old, gone, np.full(len(gone), LinkState.IDLE), now.k)
            engaged = np.flatnonzero(old.engaged)
        pool = self._pool(lasers)
        place = np.searchsorted(pool.keys, old.keys[engaged])
        for name in ("state", "terminals", "slewed_ns", "acquired_ns"):
            getattr(pool, name)[place] = getattr(old, name)[engaged]
        self._pools[number] = pool
        return pool

    def _pool(self, lasers: LaserCandidates) -> _Pool:
        count = len(lasers.a)
        return _Pool(
            LaserQuality(lasers, self._seed, self._duration_ns),
            np.full(count, LinkState.IDLE, dtype=np.uint8),
            np.full((count, 2), NONE, dtype=np.int64),
            np.zeros(count, dtype=np.int64),
            np.zeros(count, dtype=np.int64),
        )
