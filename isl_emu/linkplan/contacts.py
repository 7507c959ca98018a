"""Contacts: the intervals during which a link is up without a break."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from isl_emu.linkplan.plan import LinkPlan


@dataclass(frozen=True)
class Contacts:
    """C contacts, ordered by link and time; all arrays shape (C,)."""

    link: np.ndarray  # int32, index into the plan's links
    start_ns: np.ndarray  # int64, since the start of the run; the first instant at which the link is up
    end_ns: np.ndarray  # int64, the first instant at which it is down again, or the end of the run


def find_contacts(plan: LinkPlan) -> Contacts:
    """The contacts of every link of a plan; their ends are exact to one time step."""
    instant = np.repeat(np.arange(plan.grid.count), np.diff(plan.row_start))
    order = np.lexsort((instant, plan.row_link))
    link, instant = plan.row_link[order], instant[order]
    starts = np.ones(link.size, dtype=bool)
    starts[1:] = (link[1:] != link[:-1]) | (instant[1:] != instant[:-1] + 1)
    ends = np.roll(starts, -1)
    return Contacts(link[starts], instant[starts] * plan.grid.step_ns, (instant[ends] + 1) * plan.grid.step_ns)
