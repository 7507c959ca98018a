"""Faults laid over a plan: what really happens, and what is known of it.

What a plan says without faults is kept, so when a fault is over its links are exactly what they would have been. Faults
that hold at once add up, and each ends by itself: what any of them cuts is cut, losses, corruption and duplication come
each on its own, jitters add up, factors multiply. One fault hits a link once, at however many of its ends.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from isl_emu.arrays import Bools, Ints
from isl_emu.linkplan.contacts import rows_by_link
from isl_emu.linkplan.events import Events, LinkState, ordered_events
from isl_emu.linkplan.fault_events import Faults, FaultThing
from isl_emu.linkplan.plan import LinkPlan, either_loss_ratio

LEAST_RATE_BIT_S = 8  # netem counts whole bytes a second


def with_faults(sky: LinkPlan, faults: Faults) -> LinkPlan:
    """The plan that becomes of one without faults; the same if there are none."""
    if not faults.names:
        return sky
    really = _laid_over(sky, faults, faults.k_from, faults.k_until)
    known = None if faults.all_known_at_once else _laid_over(sky, faults, faults.k_known, faults.k_forgotten)
    return replace(really, faults=faults, without_faults=sky, as_known=known)


def expected_at(plan: LinkPlan, k: int) -> LinkPlan:
    """The plan as it looks to those at instant `k`: what they know to be out of order stays so, and all else works."""
    faults, count = plan.faults, plan.grid.count
    if not faults.names:
        return plan
    return _laid_over(plan.sky, faults, np.where(faults.known(k), 0, count), np.full(len(faults.fault), count))


def links_hit(plan: LinkPlan, faults: Faults) -> tuple[np.ndarray, np.ndarray]:
    """The links that each event hits, those of a node too: numbers of events and of links, both shape (H,)."""
    is_link, is_node = faults.thing == FaultThing.LINK, faults.thing == FaultThing.NODE
    ends = np.concatenate([plan.links.a, plan.links.b])
    order = np.argsort(ends, kind="stable")
    event = np.flatnonzero(is_node)
    first, last = (np.searchsorted(ends[order], faults.target[event], side=side) for side in ("left", "right"))
    of_node = order[_ranges(first, last)] % max(len(plan.links.a), 1)
    events = np.concatenate([np.flatnonzero(is_link), np.repeat(event, last - first)])
    return events, np.concatenate([faults.target[is_link], of_node]).astype(np.int32)


def _laid_over(sky: LinkPlan, faults: Faults, k_from: np.ndarray, k_until: np.ndarray) -> LinkPlan:
    """The plan with each event holding from and until other instants; it has no faults of its own."""
    order, link, instant = rows_by_link(sky)
    place: Ints = link.astype(np.int64) * sky.grid.count + instant
    event, hit = links_hit(sky, faults)
    begin, end = (np.searchsorted(place, hit * np.int64(sky.grid.count) + k[event]) for k in (k_from, k_until))
    count = len(order)
    cut = np.zeros(count, dtype=bool)
    spoilt = np.zeros((3, count))  # ratios of packets that are lost, corrupted, duplicated
    jitter_ns, rate_factor, delay_factor = np.zeros(count, np.int64), np.ones(count), np.ones(count)
    for number, terms in enumerate(faults.terms):
        own = faults.fault[event] == number
        hits = _covered(begin[own], np.maximum(begin, end)[own], count)
        cut |= hits & terms["cut"]
        for kind, name in enumerate(("loss_ratio", "corruption_ratio", "duplication_ratio")):
            spoilt[kind, hits] = either_loss_ratio(spoilt[kind, hits], terms[name])
        jitter_ns[hits] += terms["jitter_ns"]
        rate_factor[hits] *= terms["rate_factor"]
        delay_factor[hits] *= terms["delay_factor"]
    back = np.empty(count, np.int64)
    back[order] = np.arange(count)  # from rows by link to rows by instant
    stays = ~cut[back]
    row = np.flatnonzero(stays)
    at = back[stays]
    lost, corrupted, duplicated = spoilt[:, at]
    return replace(
        sky,
        row_start=np.concatenate([[0], np.cumsum(stays)])[sky.row_start].astype(np.int64),
        row_link=sky.row_link[row],
        row_delay_ns=_times(sky.row_delay_ns[row], delay_factor[at], 0),
        row_rate_ab_bit_s=_times(sky.row_rate_ab_bit_s[row], rate_factor[at], LEAST_RATE_BIT_S),
        row_rate_ba_bit_s=_times(sky.row_rate_ba_bit_s[row], rate_factor[at], LEAST_RATE_BIT_S),
        row_loss_ratio=either_loss_ratio(sky.row_loss_ratio[row], lost),
        row_corruption_ratio=corrupted,
        row_duplication_ratio=duplicated,
        row_jitter_ns=jitter_ns[at],
        events=_events(sky.events, link, instant, cut),
    )


def _times(value: Ints, factor: np.ndarray, least: int) -> Ints:
    """Whole numbers times factors; where a factor is 1, exactly what they were."""
    scaled: Ints = np.where(factor == 1.0, value, np.maximum(np.rint(value * factor), least)).astype(np.int64)
    return scaled


def _events(sky: Events, link: np.ndarray, instant: np.ndarray, cut: Bools) -> Events:
    """The changes of state where some rows, ordered by link and instant, are cut."""
    state = np.where(cut, LinkState.FAULT, LinkState.TRACKING)
    changes = np.ones(len(link), dtype=bool)
    changes[1:] = (link[1:] != link[:-1]) | (instant[1:] != instant[:-1] + 1) | (state[1:] != state[:-1])
    others = sky.state != LinkState.TRACKING
    return ordered_events(
        np.concatenate([sky.k[others], instant[changes]]),
        np.concatenate([sky.link[others], link[changes]]),
        np.concatenate([sky.state[others], state[changes]]),
    )


def _covered(first: np.ndarray, last: np.ndarray, count: int) -> Bools:
    """Which of so many places lie in one of the stretches from `first` until before `last`."""
    begun = np.zeros(count + 1, np.int64)
    np.add.at(begun, first, 1)
    np.add.at(begun, last, -1)
    covered: Bools = np.cumsum(begun)[:-1] > 0
    return covered


def _ranges(first: np.ndarray, last: np.ndarray) -> Ints:
    """All whole numbers from each `first` until before its `last`, one range after the other."""
    size = last - first
    ranges: Ints = np.arange(size.sum()) + np.repeat(first - np.concatenate([[0], np.cumsum(size)[:-1]]), size)
    return ranges
