"""Contacts as bundle-protocol routers want them: one for each direction, in whole seconds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone

from isl_emu.linkplan.contacts import contacts_with_terms
from isl_emu.linkplan.plan import LinkPlan
from isl_emu.units import NS_PER_S

BITS_PER_BYTE = 8


@dataclass(frozen=True)
class DirectedContact:
    """One node can send to another; times are whole seconds since `reference`, rounded into the contact."""

    source: int  # node index
    destination: int  # node index
    start_s: int
    end_s: int
    rate_byte_s: int  # mean, physical
    delay_max_ns: int


def reference(plan: LinkPlan) -> datetime:
    """The begun second in which the plan starts, UTC."""
    return plan.grid.start.astimezone(timezone.utc).replace(microsecond=0)


def directed_contacts(plan: LinkPlan) -> Iterator[DirectedContact]:
    """Both directions of every contact, by link and time; those with no whole second or no rate are left out."""
    late_ns = plan.grid.start.microsecond * 1000
    contacts, terms = contacts_with_terms(plan)
    columns = (contacts.link, contacts.start_ns, contacts.end_ns, *vars(terms).values())
    for link, start_ns, end_ns, _, delay_max_ns, ab_bit_s, ba_bit_s, _ in zip(*(column.tolist() for column in columns)):
        a, b = int(plan.links.a[link]), int(plan.links.b[link])
        start_s, end_s = -(-(start_ns + late_ns) // NS_PER_S), (end_ns + late_ns) // NS_PER_S
        for source, destination, rate_bit_s in ((a, b, ab_bit_s), (b, a, ba_bit_s)):
            rate_byte_s = rate_bit_s // BITS_PER_BYTE
            if end_s > start_s and rate_byte_s > 0:
                yield DirectedContact(source, destination, start_s, end_s, rate_byte_s, delay_max_ns)
