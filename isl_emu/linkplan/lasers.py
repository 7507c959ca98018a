"""The laser links of a plan: what geometry allows, less outages, and the rate and loss of what is left."""

from __future__ import annotations

import numpy as np

from isl_emu.geometry.sightline import one_way_delay_ns
from isl_emu.linkplan.budget import closing_rate_bit_s
from isl_emu.linkplan.candidates import LaserCandidates
from isl_emu.linkplan.constraints import Ephemeris, feasible
from isl_emu.linkplan.outages import OutageTimes, jitter_loss_ratio
from isl_emu.linkplan.rows import Rows


class LaserQuality:
    """Whether candidate links could carry data, and how well; nothing about terminals.

    Args:
        lasers: the candidates.
        seed: of their outages and losses.
        duration_ns: of the run.
    """

    def __init__(self, lasers: LaserCandidates, seed: int, duration_ns: int):
        self.lasers, self._seed = lasers, seed
        self._outages = [
            (which, OutageTimes(seed, terms.outages, lasers.a[which], lasers.b[which], duration_ns))
            for term, terms in enumerate(lasers.terms)
            if terms.outages and len(which := np.flatnonzero(lasers.term == term))
        ]

    def possible(self, sky: Ephemeris) -> tuple[np.ndarray, np.ndarray]:
        """Which candidates geometry, budget and outages leave, and how long they are: bool and km, shape (K, C)."""
        up, distance_km = feasible(self.lasers, sky)
        for which, times in self._outages:
            up[:, which] &= times.up(sky.t_ns)
        for term, terms in enumerate(self.lasers.terms):
            which = np.flatnonzero(self.lasers.term == term)
            if terms.budget and len(which):
                up[:, which] &= closing_rate_bit_s(terms.budget, distance_km[:, which], terms.rate_bit_s) > 0
                up[:, which] &= closing_rate_bit_s(terms.budget, distance_km[:, which], terms.backward_rate_bit_s) > 0
        return up, distance_km

    def broken(self, sky: Ephemeris, step_ns: int) -> np.ndarray:
        """Which candidates had an outage since the instant before, bool, shape (K, C)."""
        broken = np.zeros((len(sky.t_ns), len(self.lasers.a)), dtype=bool)
        for which, times in self._outages:
            broken[:, which] = times.broken(sky.t_ns, step_ns)
        return broken

    def rows(self, k: np.ndarray, candidate: np.ndarray, distance_km: np.ndarray, t_ns: np.ndarray) -> Rows:
        """Rows of links that track: at instants `k`, by candidate, with their ranges and times; all of shape (R,)."""
        lasers = self.lasers
        a, b = lasers.a[candidate].astype(np.int64), lasers.b[candidate].astype(np.int64)
        there_bit_s, back_bit_s = lasers.rate_bit_s[candidate], lasers.return_rate_bit_s[candidate]
        loss_ratio = np.zeros(len(k))
        for term, terms in enumerate(lasers.terms):
            if terms.budget is None and terms.jitter is None:
                continue
            of_term = lasers.term[candidate] == term
            if terms.budget is not None:
                for rate_bit_s in (there_bit_s, back_bit_s):
                    closing = closing_rate_bit_s(terms.budget, distance_km[of_term], rate_bit_s[of_term])
                    rate_bit_s[of_term] = closing
            drawn = jitter_loss_ratio(self._seed, terms.jitter, a[of_term], b[of_term], t_ns[of_term])
            loss_ratio[of_term] = drawn
        return Rows(k, a, b, one_way_delay_ns(distance_km), there_bit_s, back_bit_s, loss_ratio)


def ideal_rows(quality: LaserQuality, sky: Ephemeris) -> Rows:
    """Links whose terminals point and acquire in no time: up whenever they could be."""
    up, distance_km = quality.possible(sky)
    k, candidate = np.nonzero(up)
    return quality.rows(k, candidate, distance_km[up], sky.t_ns[k])
