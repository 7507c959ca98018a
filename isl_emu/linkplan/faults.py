"""Faults laid over a plan: what really happens, and what is known of it.

What a plan says without faults is kept, so when a fault is over its links are exactly what they would have been. Faults
that hold at once add up, and each ends by itself: what any of them cuts is cut, losses, corruption and duplication come
each on its own, jitters add up, factors multiply. One fault hits a link once, at however many of its ends.

Where it is that faults change rows follows from the contacts and from the events of the faults, without a look at any
row. So a long plan with faults is no second plan in memory or in files: its rows are worked out when they are read,
some instants at a time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import numpy as np

from isl_emu.arrays import Bools, Ints
from isl_emu.linkplan.contacts import find_contacts, moments
from isl_emu.linkplan.events import Events, LinkState, ordered_events
from isl_emu.linkplan.fault_events import Faults, FaultThing
from isl_emu.linkplan.plan import LinkPlan, either_loss_ratio
from isl_emu.linkplan.rows import ROWS_AT_ONCE, BlockedColumn, Column, Empty, by_link

LEAST_RATE_BIT_S = 8  # netem counts whole bytes a second
ROWS_LAID = 1 << 18  # that are worked out together where a plan is long, in some 50 ms
PIECES_KEPT = 20  # of a long plan, whose rows are worked out: 300 MB


def with_faults(sky: LinkPlan, faults: Faults, empty: Empty | None = None) -> LinkPlan:
    """The plan that becomes of one without faults; the same if there are none.

    Args:
        sky: the plan without faults.
        faults: what is laid over it.
        empty: makes long arrays, where all rows will be read again and again; without it those of a long plan are
            worked out whenever they are read.
    """
    if not faults.names:
        return sky
    really = _laid_over(sky, faults, faults.k_from, faults.k_until, empty)
    known = None
    if not faults.all_known_at_once:
        known = _laid_over(sky, faults, faults.k_known, faults.k_forgotten, empty)
    return replace(really, faults=faults, without_faults=sky, as_known=known)


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


def _laid_over(sky: LinkPlan, faults: Faults, k_from: np.ndarray, k_until: np.ndarray, empty: Empty | None) -> LinkPlan:
    """The plan with each event holding from and until other instants; it has no faults of its own."""
    event, link = links_hit(sky, faults)
    held = k_from[event] < k_until[event]
    event, link = event[held], link[held]
    hits = _Hits(faults.fault[event], link, k_from[event], k_until[event])
    spells = _spells(sky, hits.only(faults.terms["cut"][hits.fault]))
    rows = _LaidRows(sky, faults.terms, hits, sky.row_start - spells.cut_before(sky.grid.count))
    few = len(sky.row_link) <= ROWS_AT_ONCE
    columns: dict[str, Any] = rows.kept(empty or np.empty) if empty or few else rows.columns()
    return replace(sky, row_start=rows.row_start, events=spells.events(sky.events), **columns)


@dataclass(frozen=True)
class _Hits:
    """Stretches of time of links, H of them: when which faults hit them; arrays have the shape (H,)."""

    fault: Ints  # its number
    link: Ints
    k_from: Ints
    k_until: Ints

    def only(self, chosen: Bools) -> _Hits:
        return _Hits(self.fault[chosen], self.link[chosen], self.k_from[chosen], self.k_until[chosen])

    def moments(self, plan: LinkPlan) -> tuple[Ints, Ints]:
        """From which moments until which."""
        return moments(plan, self.link, self.k_from), moments(plan, self.link, self.k_until)


@dataclass(frozen=True)
class _Spells:
    """Stretches of time in which a link would be up, all cut or all not; ordered by link and instant, shape (S,)."""

    link: Ints
    k_from: Ints
    k_until: Ints
    cut: Bools

    def cut_before(self, count: int) -> Ints:
        """How many rows of a plan with so many instants are cut before each, and in all; int64 (K+1,)."""
        change = np.zeros(count + 2, np.int64)
        np.add.at(change, self.k_from[self.cut] + 1, 1)
        np.add.at(change, self.k_until[self.cut] + 1, -1)
        before: Ints = np.cumsum(np.cumsum(change))[:-1]
        return before

    def events(self, sky: Events) -> Events:
        """The changes of state that become of those without faults."""
        others = sky.state != LinkState.TRACKING
        state = np.where(self.cut, LinkState.FAULT, LinkState.TRACKING)
        return ordered_events(
            np.concatenate([sky.k[others], self.k_from]),
            np.concatenate([sky.link[others], self.link]),
            np.concatenate([sky.state[others], state]),
        )


def _spells(sky: LinkPlan, cuts: _Hits) -> _Spells:
    """The contacts of a plan, in parts where cuts begin or end; of these some may hold at once."""
    contacts, step_ns = find_contacts(sky), sky.grid.step_ns
    up = _Hits(0 * contacts.link, contacts.link, contacts.start_ns // step_ns, contacts.end_ns // step_ns)
    spans = [up.moments(sky), cuts.moments(sky)]
    edges = np.unique(np.concatenate([moment for span in spans for moment in span]))
    is_up, is_cut = (
        _covered(np.searchsorted(edges, begin), np.searchsorted(edges, end), len(edges)) for begin, end in spans
    )
    new = is_up & ~(np.roll(is_up, 1) & (np.roll(is_cut, 1) == is_cut))
    last = is_up & np.roll(new | ~is_up, -1)
    link, k_from = np.divmod(edges[new], sky.grid.count + 1)
    return _Spells(link, k_from, np.roll(edges, -1)[last] - link * (sky.grid.count + 1), is_cut[new])


class _LaidRows:
    """The rows of a plan with faults, some instants at a time.

    Args:
        sky: the plan without them.
        terms: what each fault does; TERMS (F,).
        hits: when each of them hits which links.
        row_start: of the plan with faults, shape (K+1,).
    """

    def __init__(self, sky: LinkPlan, terms: np.ndarray, hits: _Hits, row_start: Ints):
        self._sky, self._terms, self._hits, self.row_start = sky, terms, hits, row_start
        self._pieces = list(sky.pieces(ROWS_LAID))
        self._worked_out = lru_cache(PIECES_KEPT)(self._work_out)

    def kept(self, empty: Empty) -> dict[str, np.ndarray]:
        """The plan's columns by name, all of them worked out now."""
        made = dict[str, np.ndarray]()
        for number, piece in enumerate(self._pieces):
            place = slice(*self.row_start[[piece.first, piece.end]])
            for name, values in self._work_out(number).items():
                if not number:
                    made[name] = empty(int(self.row_start[-1]), values.dtype)
                made[name][place] = values
        return made

    def columns(self) -> dict[str, Column]:
        """The plan's columns by name, worked out when they are read."""
        bounds = np.append([piece.first for piece in self._pieces], self._pieces[-1].end)
        start = self.row_start[bounds]
        return {
            name: BlockedColumn(start, column.dtype, partial(self._column, name))
            for name, column in self._worked_out(0).items()
        }

    def _column(self, name: str, at: int) -> np.ndarray:
        values = self._worked_out(at)[name]
        values.setflags(write=False)
        return values

    def _work_out(self, at: int) -> dict[str, np.ndarray]:
        """The columns of a piece."""
        sky, piece = self._sky, self._pieces[at]
        rows = sky.at_rows(piece.rows)
        order = by_link(rows.link, len(sky.links.a))
        moment = moments(sky, rows.link, piece.k)[order]
        count = len(order)
        cut = np.zeros(count, dtype=bool)
        spoilt = np.zeros((3, count))  # ratios of packets that are lost, corrupted, duplicated
        jitter_ns, rate_factor, delay_factor = np.zeros(count, np.int64), np.ones(count), np.ones(count)
        near = self._hits.only((self._hits.k_from < piece.end) & (self._hits.k_until > piece.first))
        begin, end = (np.searchsorted(moment, at) for at in near.moments(sky))
        for number, terms in enumerate(self._terms):
            own = near.fault == number
            hits = _covered(begin[own], end[own], count)
            cut |= hits & terms["cut"]
            for kind, name in enumerate(("loss_ratio", "corruption_ratio", "duplication_ratio")):
                spoilt[kind, hits] = either_loss_ratio(spoilt[kind, hits], terms[name])
            jitter_ns[hits] += terms["jitter_ns"]
            rate_factor[hits] *= terms["rate_factor"]
            delay_factor[hits] *= terms["delay_factor"]
        back = np.empty(count, np.int64)
        back[order] = np.arange(count)  # from rows by link to rows by instant
        stays = ~cut[back]
        own = back[stays]
        lost, corrupted, duplicated = spoilt[:, own]
        return {
            "row_link": rows.link[stays],
            "row_delay_ns": _times(rows.delay_ns[stays], delay_factor[own], 0),
            "row_rate_ab_bit_s": _times(rows.rate_ab_bit_s[stays], rate_factor[own], LEAST_RATE_BIT_S),
            "row_rate_ba_bit_s": _times(rows.rate_ba_bit_s[stays], rate_factor[own], LEAST_RATE_BIT_S),
            "row_loss_ratio": either_loss_ratio(rows.loss_ratio[stays], lost),
            "row_corruption_ratio": corrupted,
            "row_duplication_ratio": duplicated,
            "row_jitter_ns": jitter_ns[own],
        }


def _times(value: Ints, factor: np.ndarray, least: int) -> Ints:
    """Whole numbers times factors; where a factor is 1, exactly what they were."""
    scaled: Ints = np.where(factor == 1.0, value, np.maximum(np.rint(value * factor), least)).astype(np.int64)
    return scaled


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
