"""The contact plan as commands for ionadmin of NASA's ION (Interplanetary Overlay Network).

Node numbers are the plan's node indices plus one; the comment lines name them. ION counts whole seconds and bytes: a
contact is rounded inwards, its rate is the mean over the contact, and a range is the one-way light time rounded up, so
1 everywhere near the Earth. A `range` whose first node number is the lower holds both ways.

Source: ION-DTN, ici/doc/pod5/ionrc.pod (ION 4).
"""

from __future__ import annotations

from isl_emu.export.directed import directed_contacts, reference
from isl_emu.linkplan.plan import LinkPlan
from isl_emu.units import NS_PER_S


def ion_text(plan: LinkPlan) -> str:
    """`@` sets the time that the others count from; then a range and the two directions of each contact."""
    lines = ["# contact plan by isl-emu; node number = node:"]
    lines += [f"# {number} = {name}" for number, name in enumerate(plan.nodes.names, start=1)]
    lines.append(f"@ {reference(plan):%Y/%m/%d-%H:%M:%S}")
    before = None
    for contact in directed_contacts(plan):
        source, destination = contact.source + 1, contact.destination + 1
        interval = f"+{contact.start_s} +{contact.end_s}"
        span = f"{interval} {min(source, destination)} {max(source, destination)}"
        if span != before:
            lines.append(f"a range {span} {-(-contact.delay_max_ns // NS_PER_S)}")
        lines.append(f"a contact {interval} {source} {destination} {contact.rate_byte_s}")
        before = span
    return "\n".join(lines) + "\n"
