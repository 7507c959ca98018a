"""Contact plans as text: as CSV, and as the bundle-protocol routers ION and uD3TN read them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from isl_emu.errors import ScenarioError
from isl_emu.linkplan.contacts import contacts_with_terms
from isl_emu.linkplan.plan import LinkPlan
from isl_emu.linkplan.plan_file import KIND_NAMES
from isl_emu.units import NS_PER_S

BITS_PER_BYTE = 8
DTN_EPOCH = datetime(2000, 1, 1, tzinfo=timezone.utc)  # RFC 9171, section 4.2.6
MTCP_PORT = 4222  # of uD3TN's own examples
ION_MOST_BYTE_S = 2**32 - 1  # an unsigned int: what is more comes out less, without a word
ION_TIMES = (datetime(1970, 1, 1, tzinfo=timezone.utc), datetime(2038, 1, 19, 3, 14, 4, tzinfo=timezone.utc))
COLUMNS = (  # of the CSV
    "a", "b", "kind", "start_utc", "end_utc", "start_s", "end_s",
    "delay_min_ns", "delay_max_ns", "rate_ab_bit_s", "rate_ba_bit_s", "loss_ratio",
)  # fmt: skip


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


def csv_text(plan: LinkPlan) -> str:
    """One line for each contact, by link and time, with one-way delays, mean physical rates and mean loss."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    contacts, terms = contacts_with_terms(plan)
    columns = [column.tolist() for column in (contacts.link, contacts.start_ns, contacts.end_ns, *vars(terms).values())]
    for link, start_ns, end_ns, *values in zip(*columns):
        a, b, kind = plan.links.a[link], plan.links.b[link], plan.links.kind[link]
        times = [plan.grid.utc(t_ns).isoformat().replace("+00:00", "Z") for t_ns in (start_ns, end_ns)]
        seconds = [t_ns / NS_PER_S if t_ns % NS_PER_S else t_ns // NS_PER_S for t_ns in (start_ns, end_ns)]
        writer.writerow([plan.nodes.names[a], plan.nodes.names[b], KIND_NAMES[kind], *times, *seconds, *values])
    return out.getvalue()


def ion_text(plan: LinkPlan) -> str:
    """Commands for ionadmin of ION (NASA's Interplanetary Overlay Network): a range, both directions of each contact.

    `@` sets the time that the others count from. Node numbers are the plan's node indices plus one; the comment lines
    name them. ION counts whole seconds and bytes: a contact is rounded inwards, its rate is the mean over the contact,
    and a range is the one-way light time rounded up, so 1 everywhere near the Earth. A `range` whose first node number
    is the lower holds both ways. Rates above what ION has bits for are written as the most that it has, and a comment
    says so.

    Source: ION-DTN, ici/doc/pod5/ionrc.pod, executeAdd in ici/utils/ionadmin.c and MAX_POSIX_TIME in
    ici/include/platform.h (ION 4).

    Raises:
        ScenarioError: the plan is not between 1970 and 2038, and ION has no other times.
    """
    _check_times(plan, "ION", ION_TIMES)
    lines = ["# contact plan by isl-emu; node number = node:"]
    lines += [f"# {number} = {name}" for number, name in enumerate(plan.nodes.names, start=1)]
    if any(contact.rate_byte_s > ION_MOST_BYTE_S for contact in directed_contacts(plan)):
        lines.append(f"# rates of more than {ION_MOST_BYTE_S} bytes/s are written as that: ION counts in 32 bits")
    lines.append(f"@ {reference(plan):%Y/%m/%d-%H:%M:%S}")
    before = None
    for contact in directed_contacts(plan):
        source, destination = contact.source + 1, contact.destination + 1
        interval = f"+{contact.start_s} +{contact.end_s}"
        span = f"{interval} {min(source, destination)} {max(source, destination)}"
        if span != before:
            lines.append(f"a range {span} {-(-contact.delay_max_ns // NS_PER_S)}")
        lines.append(f"a contact {interval} {source} {destination} {min(contact.rate_byte_s, ION_MOST_BYTE_S)}")
        before = span
    return "\n".join(lines) + "\n"


def ud3tn_text(plan: LinkPlan) -> str:
    """Configuration messages of uD3TN 0.15: a JSON object of each node's EID with those of its own neighbours.

    Each message goes to the config endpoint of the node that it is listed under, for example with uD3TN's Python
    package. Times are seconds since 2000-01-01T00:00:00Z (DTN time), rates bytes per second. A node called p00s00 is
    `dtn://p00s00.dtn/` and listens for MTCP on port 4222 of a host of its name.

    Messages in JSON are read by uD3TN's forwarding module in Python, whose whole numbers have no largest one.

    Source: ud3tn-utils 0.15.2 on PyPI, the schema of JSON configuration messages in `ud3tn_utils.config`.

    Raises:
        ScenarioError: the plan begins before 2000, and DTN time does not.
    """
    _check_times(plan, "uD3TN", (DTN_EPOCH, datetime.max.replace(tzinfo=timezone.utc)))
    first_s = round((reference(plan) - DTN_EPOCH).total_seconds())
    neighbours: dict[int, dict[int, list[DirectedContact]]] = {}
    for contact in directed_contacts(plan):
        neighbours.setdefault(contact.source, {}).setdefault(contact.destination, []).append(contact)
    names = plan.nodes.names
    messages = {
        _eid(names[node]): [_message(names[other], contacts, first_s) for other, contacts in sorted(found.items())]
        for node, found in sorted(neighbours.items())
    }
    return json.dumps({"format": "uD3TN 0.15 JSON configuration messages", "nodes": messages}, indent=1) + "\n"


def _check_times(plan: LinkPlan, program: str, times: tuple[datetime, datetime]) -> None:
    first, last = reference(plan), plan.grid.utc(plan.grid.duration_ns)
    if first < times[0] or last > times[1]:
        raise ScenarioError(
            f"time: the plan is from {first:%Y-%m-%dT%H:%M:%SZ} to {last:%Y-%m-%dT%H:%M:%SZ}, but {program} has times "
            f"from {times[0]:%Y-%m-%d} to {times[1]:%Y-%m-%d} only; change time.start, or choose another format"
        )


def _message(name: str, contacts: list[DirectedContact], first_s: int) -> dict[str, Any]:
    spans = [(first_s + contact.start_s, first_s + contact.end_s, contact.rate_byte_s) for contact in contacts]
    return {
        "command": "ADD",
        "node_id": _eid(name),
        "cla_addr": f"mtcp:{name}:{MTCP_PORT}",
        "contact_list": [{"start": start, "end": end, "data_rate": rate} for start, end, rate in spans],
    }


def _eid(name: str) -> str:
    return f"dtn://{name}.dtn/"
