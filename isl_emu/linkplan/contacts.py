"""Contacts: the intervals during which a link is up without a break, and what the link was like in each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from isl_emu.arrays import Ints
from isl_emu.linkplan.events import LinkState
from isl_emu.linkplan.plan import LinkPlan


@dataclass(frozen=True)
class Contacts:
    """C contacts, ordered by link and time; all arrays shape (C,)."""

    link: np.ndarray  # int32, index into the plan's links
    start_ns: np.ndarray  # int64, since the start of the run; the first instant at which the link is up
    end_ns: np.ndarray  # int64, the first instant at which it is down again, or the end of the run


@dataclass(frozen=True)
class Terms:
    """What links were like over C groups of their rows; all arrays shape (C,)."""

    delay_min_ns: np.ndarray  # int64
    delay_max_ns: np.ndarray  # int64
    rate_ab_bit_s: np.ndarray  # int64, mean, rounded down
    rate_ba_bit_s: np.ndarray  # int64, mean, rounded down
    loss_ratio: np.ndarray  # float64, mean


def find_contacts(plan: LinkPlan) -> Contacts:
    """The contacts of every link of a plan; their ends are exact to one time step.

    They are those of its events, which are few, so none of its rows is read.
    """
    events, step_ns = plan.events, plan.grid.step_ns
    order = np.lexsort((events.k, events.link))
    k, link, tracks = events.k[order], events.link[order], events.state[order] == LinkState.TRACKING
    same = np.roll(link, -1) == link  # as the next one's link
    same[-1:] = False
    goes_on = same & tracks & np.roll(tracks, -1)
    begins, ends = tracks & ~np.roll(goes_on, 1), tracks & ~goes_on
    until_k = np.where(same, np.roll(k, -1), plan.grid.count)
    return Contacts(link[begins], k[begins] * step_ns, until_k[ends] * step_ns)


def comes_back(plan: LinkPlan, link: int, k: int) -> int | None:
    """The first instant after `k` at which a link is up; None if it stays down until the end."""
    contacts = find_contacts(plan)
    later = (contacts.link == link) & (contacts.end_ns > (k + 1) * plan.grid.step_ns)
    begun_k = contacts.start_ns[later] // plan.grid.step_ns
    return max(int(begun_k.min()), k + 1) if len(begun_k) else None


def contacts_with_terms(plan: LinkPlan) -> tuple[Contacts, Terms]:
    """The contacts of every link of a plan, and the delays, rates and losses that each of them had."""
    contacts = find_contacts(plan)
    return contacts, _terms_of(plan, moments(plan, contacts.link, contacts.start_ns // plan.grid.step_ns))


def terms_of_links(plan: LinkPlan) -> Terms:
    """The delays, rates and losses that every link of a plan had while it was up; shape (L,)."""
    links = np.arange(len(plan.links.a))
    return _terms_of(plan, moments(plan, links, np.zeros(len(links), np.int64)))


def up_instants(plan: LinkPlan) -> Ints:
    """At how many instants each link of a plan is up; int64 (L,)."""
    contacts, up_ns = find_contacts(plan), np.zeros(len(plan.links.a), np.int64)
    np.add.at(up_ns, contacts.link, contacts.end_ns - contacts.start_ns)
    count: Ints = up_ns // plan.grid.step_ns
    return count


@dataclass
class KindTerms:
    """What all rows of the links of one kind are like."""

    up: np.ndarray  # how many there are at each instant, (K,)
    delay_ns: tuple[int, int]  # least and most
    rate_bit_s: tuple[int, int]  # from a to b
    loss_sum: float


def terms_of_kinds(plan: LinkPlan) -> dict[int, KindTerms]:
    """The terms of each kind of link that is ever up."""
    found: dict[int, KindTerms] = {}
    for piece in plan.pieces():
        rows, instant = plan.at_rows(piece.rows), piece.k
        kind = plan.links.kind[rows.link]
        for value in np.unique(kind).tolist():
            own = kind == value
            up = np.bincount(instant[own], minlength=plan.grid.count)
            delays, rates = (np.array(known[own]) for known in (rows.delay_ns, rows.rate_ab_bit_s))
            before = found.get(value) or KindTerms(0 * up, (delays[0], delays[0]), (rates[0], rates[0]), 0.0)
            found[value] = KindTerms(
                before.up + up,
                (min(before.delay_ns[0], delays.min()), max(before.delay_ns[1], delays.max())),
                (min(before.rate_bit_s[0], rates.min()), max(before.rate_bit_s[1], rates.max())),
                before.loss_sum + float(rows.loss_ratio[own].sum()),
            )
    return found


def moments(plan: LinkPlan, link: Ints, k: Ints) -> Ints:
    """One number that orders links, and instants of a link; the end of a run is an instant too."""
    ordered: Ints = link.astype(np.int64) * (plan.grid.count + 1) + k
    return ordered


def _terms_of(plan: LinkPlan, first: Ints) -> Terms:
    """The terms of groups of rows: of those from a moment (see `moments`) until before the next group's."""
    count, most = len(first), np.iinfo(np.int64).max
    size, loss = np.zeros(count, np.int64), np.zeros(count)
    delay_ns = np.full(count, most), np.zeros(count, np.int64)
    # sums of the rates themselves could overflow 64 bits: the lowest of each group, and what is above it
    lowest_bit_s, above_bit_s = np.full((2, count), most), np.zeros((2, count), np.int64)
    for piece, rows in plan.pieces_by_link():
        if not len(rows.order):
            continue
        group = np.searchsorted(first, moments(plan, rows.link, rows.k), side="right") - 1
        begin = np.flatnonzero(np.diff(group, prepend=-1))
        own, of_own = group[begin], np.diff(begin, append=len(group))
        delays = plan.row_delay_ns[piece.rows][rows.order]
        delay_ns[0][own] = np.minimum(delay_ns[0][own], np.minimum.reduceat(delays, begin))
        delay_ns[1][own] = np.maximum(delay_ns[1][own], np.maximum.reduceat(delays, begin))
        for side, column in enumerate((plan.row_rate_ab_bit_s, plan.row_rate_ba_bit_s)):
            rates = column[piece.rows][rows.order]
            before, here = lowest_bit_s[side, own], np.minimum.reduceat(rates, begin)
            low = np.minimum(before, here)
            above = np.add.reduceat(rates - np.repeat(low, of_own), begin)
            above_bit_s[side, own] += above + np.where(size[own] > 0, (before - low) * size[own], 0)
            lowest_bit_s[side, own] = low
        loss[own] += np.add.reduceat(plan.row_loss_ratio[piece.rows][rows.order], begin)
        size[own] += of_own
    rate_ab_bit_s, rate_ba_bit_s = lowest_bit_s + above_bit_s // np.maximum(size, 1)
    return Terms(*delay_ns, rate_ab_bit_s, rate_ba_bit_s, loss / np.maximum(size, 1))
