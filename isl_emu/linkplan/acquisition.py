"""Pointing, acquisition and tracking: which terminals serve which link, from instant to instant.

A terminal serves one link at a time. A link that becomes possible takes a free terminal at each end whose field of
regard covers the other; both turn to it (the angle from where each pointed last, over its slew rate; the longer of the
two), then search for each other (the longer acquisition time of the two), and then track. Whatever makes the link
impossible, or moves it out of a field of regard, frees both terminals at once; so does an outage that is over before
the next instant. Times are exact, but states are looked at only at instants: data flows from the first instant at which
slewing and acquisition are over. The target is taken where it is when the slew begins.

Choices follow each other in time, but what happens to a link between two of them follows from the sky and from the
terminals that it has. So as soon as these are known it is foreseen over all instants of a chunk at once when the link
will be lost, and where terminals point is worked out only for those that somebody asks about. An instant costs what is
decided at it, and not what goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from isl_emu.arrays import Floats, dot
from isl_emu.geometry.pointing import local_axes
from isl_emu.geometry.sightline import range_km
from isl_emu.linkplan.candidates import LaserCandidates, among, each_once, joined_candidates, key_ends, pair_keys
from isl_emu.linkplan.constraints import Ephemeris
from isl_emu.linkplan.events import LinkState
from isl_emu.linkplan.lasers import LaserQuality
from isl_emu.linkplan.pairing import Pairing
from isl_emu.linkplan.plan import Rows, joined_rows
from isl_emu.linkplan.pool import NOT_ENGAGED, Ahead, Chunk, Moment, Pool, idle_pool
from isl_emu.linkplan.terminals import NONE, Choice, Terminals, assign
from isl_emu.units import NS_PER_S

BARELY_FARTHER = 1 + 1e-9  # beyond what distances are rounded by
NO_PAIRS = np.empty(0, dtype=np.int64)


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
        self._partner = np.full(len(terminals.satellite), NONE)  # the satellite that each points at, if it is engaged
        self._pointing = terminals.rest.copy()  # where each points that is not
        self._fixed = [None if pairing.fixed is None else self._quality(pairing.fixed) for pairing in self._pairings]
        self._pools = [idle_pool(pairing.fixed or pairing.links(NO_PAIRS)) for pairing in self._pairings]
        self._rows: list[Rows] = []
        self._events: list[tuple[int, np.ndarray, np.ndarray]] = []  # instant, pairs, states
        self._engaged: list[tuple[int, int, np.ndarray, np.ndarray]] = []  # pairing, instant, pairs, terminals (U, 2)

    def ahead(self, sky: Ephemeris) -> Ahead:
        """What depends on the sky alone, at any instants; in several threads at once too."""
        prospects = [None if quality is None else quality.prospects(sky, self._step_ns) for quality in self._fixed]
        return Ahead(local_axes(sky.r_km, sky.v_km_s), prospects)

    def rows(self, sky: Ephemeris, ahead: Ahead, first: int) -> list[Rows]:
        """The links that track at the next instants, which begin with instant `first`, and what is `ahead` of them."""
        chunk, self._rows = Chunk(sky, ahead.axes, first), []
        for number, (pool, prospects) in enumerate(zip(self._pools, ahead.prospects, strict=True)):
            pool.begin(prospects or self._now_quality(number).prospects(sky, self._step_ns))
            self._foresee(pool, np.flatnonzero(pool.engaged), chunk, 0)
        for i in range(len(sky.t_ns)):
            self._instant(Moment(chunk, i))
        for number, pool in enumerate(self._pools):
            self._write(number, chunk)
            if self._pairings[number].looks_around:
                self._pools[number] = pool.only(pool.engaged)
        engaged = np.flatnonzero(self._partner != NONE)
        self._pointing[engaged] = self._seen(engaged, chunk, -1)
        return [joined_rows(self._rows)] if self._rows else []

    def links(self) -> LaserCandidates:
        """All pairs that were ever pointed at, and the fixed ones; for what is the same for a link at all instants."""
        pointed: list[list[np.ndarray]] = [[NO_PAIRS] for _ in self._pairings]
        for number, _, pairs, _ in self._engaged:
            pointed[number].append(pairs)
        return joined_candidates(
            [
                pairing.fixed or pairing.links(each_once(np.concatenate(pairs)))
                for pairing, pairs in zip(self._pairings, pointed, strict=True)
            ]
        )

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
        k = np.concatenate([np.full(len(pairs), k) for _, k, pairs, _ in self._engaged]).astype(np.int64)
        pair, terminals = (np.concatenate([engaged[part] for engaged in self._engaged]) for part in (2, 3))
        return k, pair, terminals

    def _instant(self, now: Moment) -> None:
        lost = [self._follow(pool, now) for pool in self._pools]
        for number, of_pool in enumerate(lost):
            self._choose(number, now, of_pool)
        for pool in self._pools:
            pool.tracked[:, now.i] = pool.state == LinkState.TRACKING

    def _write(self, number: int, chunk: Chunk) -> None:
        """Keep the rows of the links that a pool has tracked in a chunk."""
        pool = self._pools[number]
        link, i = np.nonzero(pool.tracked)
        if len(i):
            quality = self._now_quality(number)
            self._rows.append(quality.rows(i + chunk.first, link, pool.distance_km[link, i], chunk.sky.t_ns[i]))

    def _foresee(self, pool: Pool, which: np.ndarray, chunk: Chunk, since: int) -> None:
        """When engaged links will be lost, from an instant of a chunk on."""
        lasts = np.zeros((len(which), pool.lasting.shape[1] - since + 1), dtype=bool)  # the last: after the chunk
        lasts[:, :-1] = pool.lasting[which, since:]
        for terminals in pool.terminals[which].T:
            mounted = np.flatnonzero(self._terminals.axis[terminals].any(axis=1))  # a free terminal sees everything
            if len(mounted):
                aimed = terminals[mounted]
                ahead = dot(self._terminals.axis[aimed], self._seen(aimed, chunk, slice(since, None)))
                lasts[mounted, :-1] &= (ahead >= self._terminals.least_cos[aimed]).T
        pool.lost_i[which] = since + lasts.argmin(axis=1)

    def _follow(self, pool: Pool, now: Moment) -> np.ndarray:
        """Free what is lost and move on what slews or acquires; what was lost."""
        lost = np.flatnonzero(pool.lost_i == now.i)
        if len(lost):
            self._free(pool, lost, now.chunk, now.i - 1)
            self._set(pool, lost, np.full(len(lost), LinkState.LOST), now.k)
        moving = np.flatnonzero((pool.state == LinkState.SLEWING) | (pool.state == LinkState.ACQUIRING))
        if len(moving):
            self._advance(pool, moving, now)
        return lost

    def _advance(self, pool: Pool, which: np.ndarray, now: Moment) -> None:
        """Links whose slew or acquisition is over are acquiring or tracking."""
        state = np.full(len(which), LinkState.SLEWING)
        state[pool.slewed_ns[which] <= now.t_ns] = LinkState.ACQUIRING
        state[pool.acquired_ns[which] <= now.t_ns] = LinkState.TRACKING
        changed = state != pool.state[which]
        self._set(pool, which[changed], state[changed], now.k)

    def _choose(self, number: int, now: Moment, lost: np.ndarray) -> None:
        """Point free terminals at possible links; the pool's links may be others afterwards."""
        pairing = self._pairings[number]
        interval_ns = pairing.terms.interval_ns
        due = now.t_ns // interval_ns != (now.t_ns - self._step_ns) // interval_ns  # at the first instant too
        if pairing.looks_around:
            if due or len(lost):
                self._look_around(number, now, lost, everybody=due)
            return
        if pairing.function is not None and due:
            self._renew(number, pairing.asked(now.sky), now)
        pool = self._pools[number]
        waiting = np.flatnonzero(pool.possible[:, now.i] & ~pool.engaged)
        if len(waiting):
            kind = pairing.places.kind(*pool.ends[waiting].T)
            order = waiting[np.argsort(kind, kind="stable")]  # within planes first
            ends, (taken, left) = pool.ends[order], self._room(pairing, pool, waiting[:0])
            choice = Choice(ends, np.full_like(ends, NONE), partial(self._preference, ends, taken, now), taken, left)
            winners, terminals, _ = assign(choice, self._terminals.of_satellite)
            self._point(number, order[winners], terminals, now)

    def _look_around(self, number: int, now: Moment, lost: np.ndarray, *, everybody: bool) -> None:
        """Let some or all satellites of a nearest pairing choose, the nearest pairs first.

        Those that have lost a link look for another that leaves all others as they are. If everybody chooses, engaged
        links compete, as much nearer as the hysteresis says. Nobody who is farther away than the farthest of them then
        seems has his turn before the last of them, so only those within that distance are asked together with them,
        and all the others are looked for by those that have room left.
        """
        pairing, pool = self._pairings[number], self._pools[number]
        seekers = np.full(len(pairing.names), everybody)
        seekers[pool.ends[lost]] = True
        engaged = np.flatnonzero(pool.engaged)
        had = pool.keys(engaged)
        if everybody and len(engaged):
            taken, left = self._room(pairing, pool, engaged)
            seems_km = self._range_km(had, now) * (1 - pairing.terms.hysteresis)
            keys = pairing.around(now.sky, seekers, left, within_km=seems_km.max() * BARELY_FARTHER)
            keys = np.concatenate([had, keys[~among(keys, had)]])
            held = np.concatenate([pool.terminals[engaged], np.full((len(keys) - len(had), 2), NONE)])
            nearness_km = np.concatenate([seems_km, self._range_km(keys[len(had) :], now)])
            self._compete(number, now, keys, held, nearness_km, taken, left)
        pool = self._pools[number]
        taken, left = self._room(pairing, pool, engaged[:0])
        keys = pairing.around(now.sky, seekers, left)
        keys = keys[~among(keys, np.concatenate([had, pool.keys(pool.engaged)]))]
        held = np.full((len(keys), 2), NONE)
        self._compete(number, now, keys, held, self._range_km(keys, now), taken, left)

    def _compete(
        self, number: int, now: Moment, keys: np.ndarray, held: np.ndarray, nearness_km: np.ndarray,
        taken: np.ndarray, left: np.ndarray,
    ) -> None:  # fmt: skip
        """Let pairs of a nearest pairing have terminals, the nearest first; some hold theirs already."""
        if not len(keys):
            return
        pairing, pool = self._pairings[number], self._pools[number]
        order = np.lexsort((keys, nearness_km))
        keys, held = keys[order], held[order]
        ends = np.stack(key_ends(keys), axis=1)

        def preference(which: np.ndarray) -> np.ndarray:
            suits = self._preference(ends, taken, now, which)
            could = np.flatnonzero(np.isfinite(suits).any(axis=2).all(axis=1))
            possible = self._quality(pairing.links(keys[which[could]])).possible(now.sky)[0][0]
            suits[could[~possible]] = -np.inf
            return suits

        winners, terminals, dropped = assign(Choice(ends, held, preference, taken, left), self._terminals.of_satellite)
        if len(dropped):
            gone = np.flatnonzero(pool.engaged & among(pool.keys(), keys[dropped]))
            self._free(pool, gone, now.chunk, now.i)
            self._set(pool, gone, np.full(len(gone), LinkState.IDLE), now.k)
        if len(winners):
            lasers = pairing.links(keys[winners])
            new = idle_pool(lasers)
            new.begin(self._quality(lasers).prospects(now.chunk.sky, self._step_ns))
            self._pools[number] = pool.joined(new)
            self._point(number, len(pool.state) + np.arange(len(winners)), terminals, now)

    def _range_km(self, keys: np.ndarray, now: Moment) -> np.ndarray:
        a, b = key_ends(keys)
        return range_km(now.sky.r_km[0, a], now.sky.r_km[0, b])

    def _room(self, pairing: Pairing, pool: Pool, competing: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which terminals are not to be had, bool (T,), and how many links each satellite may have more, int64 (N,), if
        some engaged links compete for what they have."""
        suits = self._terminals.between_shells if pairing.between_shells else self._terminals.in_shell
        taken, stays = (self._partner != NONE) | ~suits, pool.engaged
        taken[pool.terminals[competing]] = stays[competing] = False
        left = np.bincount(self._terminals.satellite[~taken], minlength=len(pairing.names))
        if pairing.most is not None:
            linked = np.bincount(pool.ends[stays].ravel(), minlength=len(pairing.names))
            left = np.minimum(left, pairing.most - linked)
        return taken, left

    def _preference(self, ends: np.ndarray, taken: np.ndarray, now: Moment, which: np.ndarray) -> np.ndarray:
        """How well each terminal of both ends of some pairs suits, -inf where it does not, shape (U, 2, M).

        A terminal that looks straight at the other comes first, then mounted ones that look aside, then free ones; of
        free ones the one that turns least.
        """
        ends = ends[which]
        table = self._terminals.of_satellite[ends]
        directions = now.chunk.directions(now.i, ends, ends[:, ::-1])
        preference = np.full(table.shape, -np.inf)
        pair, end, place = np.nonzero((table != NONE) & ~taken[table])
        terminals, sight = table[pair, end, place], directions[pair, end]
        axis = self._terminals.axis[terminals]
        score = dot(axis, sight)
        usable, free = score >= self._terminals.least_cos[terminals], ~axis.any(axis=1)
        score[free] = -2.0 + 0.5 * dot(self._pointed(terminals[free], now), sight[free])
        preference[pair, end, place] = np.where(usable, score, -np.inf)
        return preference

    def _seen(self, terminals: np.ndarray, chunk: Chunk, at: int | slice) -> Floats:
        """Where engaged terminals see the satellites that they point at, at an instant of a chunk or some."""
        return chunk.directions(at, self._terminals.satellite[terminals], self._partner[terminals])

    def _pointed(self, terminals: np.ndarray, now: Moment) -> np.ndarray:
        """Where terminals of any shape (...) point, shape (..., 3)."""
        pointing: np.ndarray = self._pointing[terminals]
        engaged = self._partner[terminals] != NONE
        if engaged.any():
            pointing[engaged] = self._seen(terminals[engaged], now.chunk, now.i)
        return pointing

    def _point(self, number: int, which: np.ndarray, terminals: np.ndarray, now: Moment) -> None:
        """Begin to slew towards links; at the start of a run they may be tracking already."""
        if not len(which):
            return
        pool, terms = self._pools[number], self._pairings[number].terms
        ends = pool.ends[which]
        cos = dot(self._pointed(terminals, now), now.chunk.directions(now.i, ends, ends[:, ::-1]))
        angle_rad = np.arccos(np.clip(cos, -1.0, 1.0))
        slew_ns = np.ceil(angle_rad / self._terminals.slew_rate_rad_s[terminals] * NS_PER_S).astype(np.int64)
        acquisition_ns = self._terminals.acquisition_ns[terminals]
        if now.k == 0 and terms.at_start == "tracking":
            slew_ns, acquisition_ns = np.zeros_like(slew_ns), np.zeros_like(slew_ns)
        pool.terminals[which] = terminals
        pool.slewed_ns[which] = now.t_ns + slew_ns.max(axis=1)
        pool.acquired_ns[which] = pool.slewed_ns[which] + acquisition_ns.max(axis=1)
        self._partner[terminals] = ends[:, ::-1]
        self._engaged.append((number, now.k, pool.keys(which), terminals))
        pool.state[which] = LinkState.IDLE
        self._foresee(pool, which, now.chunk, now.i + 1)
        self._advance(pool, which, now)

    def _free(self, pool: Pool, which: np.ndarray, chunk: Chunk, last: int) -> None:
        """Leave terminals as they pointed at an instant of a chunk, or before it (-1)."""
        terminals = pool.terminals[which].ravel()
        if last >= 0:
            self._pointing[terminals] = self._seen(terminals, chunk, last)
        self._partner[terminals] = NONE
        pool.terminals[which], pool.lost_i[which] = NONE, NOT_ENGAGED

    def _set(self, pool: Pool, which: np.ndarray, state: np.ndarray, k: int) -> None:
        """Change states, and remember that as events."""
        if len(which):
            pool.state[which] = state
            self._events.append((k, pool.keys(which), state.astype(np.uint8)))

    def _renew(self, number: int, lasers: LaserCandidates, now: Moment) -> None:
        """Put other candidates into a pool; engaged ones that are not among them are let go."""
        old, keys = self._pools[number], pair_keys(lasers.a, lasers.b)
        stays = among(old.keys(), keys)
        gone, engaged = np.flatnonzero(old.engaged & ~stays), np.flatnonzero(old.engaged & stays)
        self._free(old, gone, now.chunk, now.i)
        self._set(old, gone, np.full(len(gone), LinkState.IDLE), now.k)
        self._write(number, now.chunk)
        pool = self._pools[number] = idle_pool(lasers)
        place = np.searchsorted(keys, old.keys(engaged))
        for name in ("state", "terminals", "slewed_ns", "acquired_ns", "lost_i"):
            getattr(pool, name)[place] = getattr(old, name)[engaged]
        pool.begin(self._quality(lasers).prospects(now.chunk.sky, self._step_ns))

    def _quality(self, lasers: LaserCandidates) -> LaserQuality:
        return LaserQuality(lasers, self._seed, self._duration_ns)

    def _now_quality(self, number: int) -> LaserQuality:
        """Of the candidates that a pool has at the moment."""
        pairing, pool = self._pairings[number], self._pools[number]
        return self._fixed[number] or self._quality(pairing.links(pool.keys()))
