"""Random processes of laser links: outages that switch them off, and losses that fluctuate.

Both belong to the pair of satellites and to time alone: they are the same whether or not the link is used, and
however the plan is computed.
"""

from __future__ import annotations

import numpy as np

from isl_emu.arrays import Bools, Floats, Ints
from isl_emu.linkplan.draws import exponential, uniform
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
