"""A link plan as labelled tables (Arrow), for people and their tools; times both in ns since the start and as UTC.

`docs/plan.md` lists the columns.
"""

from __future__ import annotations

from datetime import datetime, timezone

import numpy as np
import pyarrow as pa

from isl_emu.linkplan.contacts import contacts_with_terms, find_contacts, terms_of_links, up_instants
from isl_emu.linkplan.plan import LinkPlan
from isl_emu.linkplan.plan_file import KIND_NAMES, STATE_NAMES
from isl_emu.timebase import TimeGrid
from isl_emu.units import NS_PER_S

_UNIX_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def links_table(plan: LinkPlan) -> pa.Table:
    """One row for each link that is up at least once, with its terms over all its contacts."""
    contacts, terms, links = find_contacts(plan), terms_of_links(plan), len(plan.links.a)
    count = np.bincount(contacts.link, minlength=links)
    which = np.flatnonzero(count)
    return pa.table(
        {
            **_ends(plan, which.astype(np.int32)),
            "queue_ns": plan.links.queue_ns[which],
            "contacts": count[which],
            "up_ratio": up_instants(plan)[which] / plan.grid.count,
            **{name: column[which] for name, column in vars(terms).items()},
        }
    )


def contacts_table(plan: LinkPlan) -> pa.Table:
    """One row for each contact, ordered by link and time, with the terms that the link had in it."""
    contacts, terms = contacts_with_terms(plan)
    return pa.table(
        {
            **_ends(plan, contacts.link),
            "start": utc_array(plan.grid, contacts.start_ns),
            "end": utc_array(plan.grid, contacts.end_ns),
            "start_ns": contacts.start_ns,
            "end_ns": contacts.end_ns,
            **vars(terms),
        }
    )


def events_table(plan: LinkPlan) -> pa.Table:
    """One row for each change of a link's state, ordered by time and link."""
    events = plan.events
    t_ns = events.k * plan.grid.step_ns
    return pa.table(
        {
            "time": utc_array(plan.grid, t_ns),
            "t_ns": t_ns,
            **_ends(plan, events.link),
            "state": _named(events.state, STATE_NAMES),
        }
    )


def utc_array(grid: TimeGrid, t_ns: np.ndarray) -> pa.Array:
    """UTC time stamps of times in ns since the start of a grid."""
    since = grid.start - _UNIX_EPOCH
    start_ns = (since.days * 86_400 + since.seconds) * NS_PER_S + since.microseconds * 1000
    return pa.array(start_ns + t_ns).cast(pa.timestamp("ns", "UTC"))


def _ends(plan: LinkPlan, link: np.ndarray) -> dict[str, pa.Array]:
    """The columns that say which links these are."""
    return {
        "link": pa.array(link),
        "a": _named(plan.links.a[link], plan.nodes.names),
        "b": _named(plan.links.b[link], plan.nodes.names),
        "kind": _named(plan.links.kind[link], KIND_NAMES),
    }


def _named(index: np.ndarray, names: list[str] | tuple[str, ...]) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(index.astype(np.int32)), pa.array(names, pa.string()))
