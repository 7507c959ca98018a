"""The laser links of a plan: what geometry allows, less outages, and the rate and loss of what is left.

Outages, which switch links off, and losses that fluctuate are random processes. They belong to the pair of satellites
and to time alone: they are the same whether or not the link is used, and however the plan is computed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from isl_emu.arrays import Bools, Floats, Ints
from isl_emu.geometry.sightline import one_way_delay_ns
from isl_emu.linkplan.budget import closing_rate_bit_s
from isl_emu.linkplan.candidates import LaserCandidates
from isl_emu.linkplan.constraints import Ephemeris, feasible
from isl_emu.linkplan.draws import exponential, uniform
from isl_emu.linkplan.plan import Rows, either_loss_ratio
from isl_emu.scenario.lasers import Jitter, Outages


class OutageTimes:
    """When C links are out of order between instant 0 and the end of a run.

    Times between failures and times to repair are exponentially distributed. At the start a link is out of order with
    the long-run probability, repair / (failure + repair), so the process is stationary from the first instant.

    Args:
        outages: the mean times; None for links that never fail.
        a, b: the ends of the links, shape (C,).
        duration_ns: how far to draw.
    """

    def __init__(self, seed: int, outages: Outages | None, a: Ints, b: Ints, duration_ns: int):
        self._span_ns = duration_ns + 1
        self._first_up: Bools = np.ones(len(a), dtype=bool)
        self._switches: Ints = np.empty(0, dtype=np.int64)
        if outages is not None and len(a):
            down_ratio = outages.repair_ns / (outages.failure_ns + outages.repair_ns)
            self._first_up = uniform(seed, "outage at start", a, b) >= down_ratio
            self._switches = self._drawn(seed, outages, a, b)

    def _drawn(self, seed: int, outages: Outages, a: Ints, b: Ints) -> Ints:
        """All switching times, as link x span + time, ascending."""
        link, up, at_ns = np.arange(len(a)), self._first_up, np.zeros(len(a))
        found, count = [], 0
        while len(link):
            mean_ns = np.where(up, outages.failure_ns, outages.repair_ns)
            at_ns = at_ns + exponential(mean_ns, uniform(seed, "outage", a[link], b[link], count))
            within = at_ns < self._span_ns
            link, up, at_ns = link[within], ~up[within], at_ns[within]
            found.append(link * self._span_ns + np.ceil(at_ns).astype(np.int64).clip(max=self._span_ns - 1))
            count += 1
        return np.sort(np.concatenate(found))

    def up(self, t_ns: Ints) -> Bools:
        """Which links are in order at K times since the start, bool, shape (K, C)."""
        up: Bools = self._first_up ^ (self._switched(t_ns) % 2 == 1)
        return up

    def broken(self, t_ns: Ints, step_ns: int) -> Bools:
        """Which links failed within the step that ends at K times, even if they are in order again; bool (K, C)."""
        return self._switched(t_ns) > self._switched(np.maximum(t_ns - step_ns, 0))

    def _switched(self, t_ns: Ints) -> Ints:
        """How often each link failed or was repaired by given times, int64, shape (K, C)."""
        base = np.arange(len(self._first_up)) * self._span_ns
        by_then = np.searchsorted(self._switches, base + np.asarray(t_ns)[:, np.newaxis], side="right")
        return by_then - np.searchsorted(self._switches, base)


def jitter_loss_ratio(seed: int, jitter: Jitter | None, a: Ints, b: Ints, t_ns: Ints) -> Floats:
    """The share of packets lost to pointing jitter at given times, float64, shape (R,).

    In each interval, each link's ratio is drawn anew from an exponential distribution and cut off at 1: mostly small,
    now and then several times the mean. It describes how losses vary, not the optics that make them.

    Args:
        jitter: mean and interval; None for no loss.
        a, b: the ends, shape (R,).
        t_ns: time since the start, shape (R,).
    """
    if jitter is None:
        return np.zeros(len(a))
    drawn = exponential(jitter.mean_loss_ratio, uniform(seed, "jitter", a, b, t_ns // jitter.interval_ns))
    return np.minimum(drawn, 1.0)


@dataclass(frozen=True)
class Prospects:
    """What the sky has for C candidates at K instants, whatever terminals do; all arrays have shape (K, C)."""

    possible: np.ndarray  # bool, it can be pointed at
    lasting: np.ndarray  # bool, and it had no outage since the instant before
    distance_km: np.ndarray  # float64


class LaserQuality:
    """Whether candidate links could carry data, and how well; nothing about terminals.

    Args:
        lasers: the candidates.
        seed: of their outages and losses.
        duration_ns: of the run.
    """

    def __init__(self, lasers: LaserCandidates, seed: int, duration_ns: int):
        self.lasers, self._seed, self._duration_ns = lasers, seed, duration_ns

    @cached_property
    def _outages(self) -> list[tuple[Ints, OutageTimes]]:
        """Which candidates may fail, and when they do."""
        lasers = self.lasers
        return [
            (which, OutageTimes(self._seed, terms.outages, lasers.a[which], lasers.b[which], self._duration_ns))
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

    def prospects(self, sky: Ephemeris, step_ns: int) -> Prospects:
        """What K instants have for the candidates, given the time between two of them."""
        possible, distance_km = self.possible(sky)
        return Prospects(possible, possible & ~self.broken(sky, step_ns), distance_km)

    def rows(self, k: np.ndarray, candidate: np.ndarray, distance_km: np.ndarray, t_ns: np.ndarray) -> Rows:
        """Rows of links that track: at instants `k`, by candidate, with their ranges and times; all of shape (R,)."""
        lasers = self.lasers
        a, b = lasers.a[candidate].astype(np.int64), lasers.b[candidate].astype(np.int64)
        there_bit_s, back_bit_s = lasers.rate_bit_s[candidate], lasers.return_rate_bit_s[candidate]
        loss_ratio = np.zeros(len(k))
        for term, terms in enumerate(lasers.terms):
            if terms.budget is None and terms.jitter is None and not terms.loss_ratio:
                continue
            of_term = lasers.term[candidate] == term
            if terms.budget is not None:
                for rate_bit_s in (there_bit_s, back_bit_s):
                    closing = closing_rate_bit_s(terms.budget, distance_km[of_term], rate_bit_s[of_term])
                    rate_bit_s[of_term] = closing
            drawn = jitter_loss_ratio(self._seed, terms.jitter, a[of_term], b[of_term], t_ns[of_term])
            loss_ratio[of_term] = either_loss_ratio(drawn, terms.loss_ratio)
        return Rows(k, a, b, one_way_delay_ns(distance_km), there_bit_s, back_bit_s, loss_ratio)


def ideal_rows(quality: LaserQuality, sky: Ephemeris) -> Rows:
    """Links whose terminals point and acquire in no time: up whenever they could be."""
    up, distance_km = quality.possible(sky)
    k, candidate = np.nonzero(up)
    return quality.rows(k, candidate, distance_km[up], sky.t_ns[k])
