"""A plan in words and columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from isl_emu.linkplan.contacts import contacts_with_terms
from isl_emu.linkplan.plan import LinkKind, NodeKind
from isl_emu.linkplan.plan_file import KIND_NAMES
from isl_emu.linkplan.step_check import step_sentences
from isl_emu.planned import PlannedNetwork
from isl_emu.show.measures import degrees
from isl_emu.units import DURATION_NS, NS_PER_MS, NS_PER_S, format_quantity

ROWS_SHOWN = 40
BIT_PER_GBIT = 1e9


def summary(plan: PlannedNetwork) -> str:
    """Nodes, links, ground contacts and what the time step does, as plain text that ends with a newline."""
    degree, step = degrees(plan.link_plan), step_sentences(plan.step_check, plan.link_plan)
    links = f"links of a satellite: {degree.mean.mean():.2f} on average, {degree.least.min()} to {degree.most.max()}"
    parts = [_head(plan), _kinds(plan), _ground_contacts(plan), [links], step]
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def _head(plan: PlannedNetwork) -> list[str]:
    grid, kinds = plan.link_plan.grid, plan.link_plan.nodes.kind
    satellites = int((kinds == NodeKind.SATELLITE).sum())
    laser = int((plan.link_plan.links.kind != LinkKind.GROUND).sum())
    title = plan.scenario.name + (f": {plan.scenario.description}" if plan.scenario.description else "")
    return [
        title,
        f"{satellites} satellites, {len(kinds) - satellites} stations, {laser} laser links, "
        f"{len(plan.link_plan.links.a) - laser} ground links",
        f"{grid.count} instants from {grid.start:%Y-%m-%d %H:%M:%S} UTC, "
        f"{format_quantity(grid.step_ns, DURATION_NS)} apart",
    ]


def _kinds(plan: PlannedNetwork) -> list[str]:
    """One line for each kind of link."""
    links, grid = plan.link_plan.links, plan.link_plan.grid
    instant = np.repeat(np.arange(grid.count), np.diff(plan.link_plan.row_start))
    kind, contacts = links.kind[plan.link_plan.row_link], contacts_with_terms(plan.link_plan)[0]
    rows = []
    for value in np.unique(links.kind):
        up = np.bincount(instant[kind == value], minlength=grid.count)
        delay_ms = plan.link_plan.row_delay_ns[kind == value] / NS_PER_MS
        rate_gbit_s = plan.link_plan.row_rate_ab_bit_s[kind == value] / BIT_PER_GBIT
        loss = plan.link_plan.row_loss_ratio[kind == value]
        rows.append(
            (
                KIND_NAMES[value],
                str((links.kind == value).sum()),
                str((links.kind[contacts.link] == value).sum()),
                _span(up.min(), up.max(), "g"),
                _span(delay_ms.min(), delay_ms.max(), ".3f"),
                _span(rate_gbit_s.min(), rate_gbit_s.max(), ".4g"),
                f"{loss.mean():.2g}",
            )
        )
    heads = ("links", "count", "contacts", "up at once", "delay (ms)", "rate a to b (Gbit/s)", "mean loss")
    return columns(heads, rows) if rows else ["no link is ever up"]


def _ground_contacts(plan: PlannedNetwork) -> list[str]:
    """The first contacts of the stations, by station and time."""
    links, names = plan.link_plan.links, plan.nodes
    contacts, terms = contacts_with_terms(plan.link_plan)
    ground = np.flatnonzero(links.kind[contacts.link] == LinkKind.GROUND)
    if not len(ground):
        return []
    order = ground[np.lexsort((contacts.start_ns[ground], links.b[contacts.link[ground]]))]
    rows = [
        (
            names[links.b[contacts.link[at]]],
            names[links.a[contacts.link[at]]],
            f"{contacts.start_ns[at] / NS_PER_S:g}",
            f"{contacts.end_ns[at] / NS_PER_S:g}",
            _span(terms.delay_min_ns[at] / NS_PER_MS, terms.delay_max_ns[at] / NS_PER_MS, ".3f"),
        )
        for at in order[:ROWS_SHOWN].tolist()
    ]
    lines = columns(("station", "satellite", "from (s)", "to (s)", "delay (ms)"), rows)
    rest = len(order) - len(rows)
    return [*lines, f"... and {rest} more; `isl-emu export --format csv` lists all"] if rest else lines


def _span(low: float, high: float, form: str) -> str:
    shown = f"{low:{form}}", f"{high:{form}}"
    return shown[0] if shown[0] == shown[1] else f"{shown[0]} - {shown[1]}"


def columns(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table without a frame: first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(heads, *rows)]
    return [_line(row, widths) for row in (heads, *rows)]


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    def cells() -> Iterator[str]:
        for at, (cell, width) in enumerate(zip(row, widths)):
            yield cell.rjust(width) if at else cell.ljust(width)

    return "  ".join(cells()).rstrip()
