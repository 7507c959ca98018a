"""Contacts: the intervals during which a link is up without a break, and what the link was like in each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import TypeVar

import numpy as np

from isl_emu.arrays import Ints
from isl_emu.linkplan.events import blocks_by_link, instants_of
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


Record = TypeVar("Record", Contacts, Terms)


def find_contacts(plan: LinkPlan) -> Contacts:
    """The contacts of every link of a plan; their ends are exact to one time step."""
    return joined(
        [_contacts(plan, link, k, _begins(link, k)) for _, link, k in rows_by_link_in_blocks(plan)],
    )


def _contacts(plan: LinkPlan, link: np.ndarray, instant: np.ndarray, starts: np.ndarray) -> Contacts:
    """The contacts of some links, of whose rows it is known which begin one."""
    ends, step_ns = np.roll(starts, -1), plan.grid.step_ns
    return Contacts(link[starts], instant[starts] * step_ns, (instant[ends] + 1) * step_ns)


def contacts_with_terms(plan: LinkPlan) -> tuple[Contacts, Terms]:
    """The contacts of every link of a plan, and the delays, rates and losses that each of them had."""
    parts = []
    for order, link, instant in rows_by_link_in_blocks(plan):
        starts = _begins(link, instant)
        parts.append((_contacts(plan, link, instant, starts), terms_of(plan, order, np.flatnonzero(starts))))
    contacts, terms = zip(*parts, strict=True)
    return joined(contacts), joined(terms)


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


def rows_by_link_in_blocks(plan: LinkPlan) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """As `rows_by_link`, some whole links at a time, so that little is in memory."""
    for order in blocks_by_link(plan.row_link, len(plan.links.a)):
        yield order, plan.row_link[order], instants_of(plan.row_start, order)


def joined(parts: Sequence[Record]) -> Record:
    """One record of several, whose links follow each other."""
    first = parts[0]
    if len(parts) == 1:
        return first
    return type(first)(*(np.concatenate([getattr(part, one.name) for part in parts]) for one in fields(first)))


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
