"""The contact plan as CSV: one line for each contact, ordered by link and time."""

from __future__ import annotations

import csv
import io

from isl_emu.linkplan.contacts import contacts_with_terms
from isl_emu.linkplan.plan import LinkPlan
from isl_emu.linkplan.plan_file import KIND_NAMES
from isl_emu.units import NS_PER_S

COLUMNS = (
    "a", "b", "kind", "start_utc", "end_utc", "start_s", "end_s",
    "delay_min_ns", "delay_max_ns", "rate_ab_bit_s", "rate_ba_bit_s", "loss_ratio",
)  # fmt: skip


def csv_text(plan: LinkPlan) -> str:
    """The contacts with their one-way delays, mean physical rates and mean loss, as CSV text."""
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
