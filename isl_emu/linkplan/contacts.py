"""Contacts: the intervals during which a link is up without a break, and what the link was like in each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from isl_emu.arrays import Ints
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
    """The contacts of every link of a plan; their ends are exact to one time step."""
    return contacts_with_terms(plan)[0]


def contacts_with_terms(plan: LinkPlan) -> tuple[Contacts, Terms]:
    """The contacts of every link of a plan, and the delays, rates and losses that each of them had."""
    order, link, instant = rows_by_link(plan)
    starts = _begins(link, instant)
    ends = np.roll(starts, -1)
    step_ns = plan.grid.step_ns
    contacts = Contacts(link[starts], instant[starts] * step_ns, (instant[ends] + 1) * step_ns)
    return contacts, terms_of(plan, order, np.flatnonzero(starts))


def contact_end_of_rows(plan: LinkPlan) -> np.ndarray:
    """For each of the plan's rows when the contact that it belongs to ends; int64 (R,), as in `Contacts.end_ns`."""
    order, link, instant = rows_by_link(plan)
    end_ns = np.empty(len(order), dtype=np.int64)
    end_ns[order] = find_contacts(plan).end_ns[np.cumsum(_begins(link, instant)) - 1]
    return end_ns


def _begins(link: np.ndarray, instant: np.ndarray) -> np.ndarray:
    """Which of the rows, ordered by link and instant, begin a contact."""
    begins = np.ones(link.size, dtype=bool)
    begins[1:] = (link[1:] != link[:-1]) | (instant[1:] != instant[:-1] + 1)
    return begins


def rows_by_link(plan: LinkPlan) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The plan's rows ordered by link, then instant: their indices (int64), links (int32) and instants (int64)."""
    instant = np.repeat(np.arange(plan.grid.count), np.diff(plan.row_start))
    order = np.argsort(plan.row_link, kind="stable")  # the rows are in order of time already
    return order, plan.row_link[order], instant[order]


def terms_of(plan: LinkPlan, order: np.ndarray, first: np.ndarray) -> Terms:
    """The terms of groups of rows.

    Args:
        order: indices of rows, all of a group together, shape (R,).
        first: where in `order` each group begins, ascending, shape (C,).
    """
    if not len(first):
        none = np.empty(0, dtype=np.int64)
        return Terms(none, none, none, none, none.astype(np.float64))
    size = np.diff(first, append=len(order))
    delay_ns = plan.row_delay_ns[order]

    def mean_bit_s(rate_bit_s: Ints) -> Ints:
        rate_bit_s = rate_bit_s[order]
        lowest: Ints = np.minimum.reduceat(rate_bit_s, first)  # sums of the rates themselves could overflow 64 bits
        mean: Ints = lowest + np.add.reduceat(rate_bit_s - np.repeat(lowest, size), first) // size
        return mean

    return Terms(
        np.minimum.reduceat(delay_ns, first),
        np.maximum.reduceat(delay_ns, first),
        mean_bit_s(plan.row_rate_ab_bit_s),
        mean_bit_s(plan.row_rate_ba_bit_s),
        np.add.reduceat(plan.row_loss_ratio[order], first) / size,
    )
