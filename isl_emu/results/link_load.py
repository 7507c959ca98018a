"""The chapter of a report on links: how busy they were, what waited before them, and what they dropped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from isl_emu.linkplan.plan import LinkPlan
from isl_emu.parts.finished_run import ConcludedRun
from isl_emu.runs.journal import DROPS_JOURNAL, LINKS_JOURNAL
from isl_emu.show.chapter import Chapter, DataTable, Item, Picture
from isl_emu.tables.text import share, size_text, three_digits
from isl_emu.units import NS_PER_S

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 8  # of the busiest directions of links
ROWS = 20
CAUSES = ("down", "fault", "lost", "full", "unclear")  # of drops; a folder of an older version has no "fault"


@dataclass(frozen=True)
class LinkLoad:
    """How busy one direction of a link was: S spells of time, in each of which something went over it.

    Args:
        begin_ns, end_ns: of each spell, (S,).
        rate_bit_s: sent meanwhile, (S,).
        used_ratio: bits sent over what the link could have carried meanwhile, (S,).
        waiting_byte: on the link, or before it, at the end of each spell, (S,).
        totals: the last row of `links.parquet`.
    """

    name: str
    begin_ns: np.ndarray
    end_ns: np.ndarray
    rate_bit_s: np.ndarray
    used_ratio: np.ndarray
    waiting_byte: np.ndarray
    totals: Mapping[str, Any]


def links_chapter(run: ConcludedRun, fidelity: Mapping[str, Any]) -> Chapter:
    """What links carried and dropped."""
    items: list[Item] = []
    carried, dropped, ended_ns = (fidelity.get(key) for key in ("carried_packets", "dropped_packets", "ended_ns"))
    if carried is not None and ended_ns:
        rate = carried * NS_PER_S / ended_ns
        items.append(f"{carried:,} packets were carried, counted at each hop: {rate:,.0f} in an emulated second.")
    if dropped is not None:
        items.append(f"{dropped:,} {'packet was' if dropped == 1 else 'packets were'} dropped.")
    items += _busiest_items(run)
    rows = sorted(run.rows(DROPS_JOURNAL), key=lambda row: sum(row.get(cause, 0) for cause in CAUSES), reverse=True)
    if rows:
        items.append(
            DataTable(
                "Packets dropped by the ends of links: the link was down, cut by a fault or by hand, planned loss, the "
                "queue was full, not clear",
                ("from", "to", "link down", "fault", "planned loss", "queue full", "unclear"),
                [(row["node"], row["peer"], *(f"{row.get(cause, 0):,}" for cause in CAUSES)) for row in rows[:ROWS]],
                left=2,
                rest=f"{len(rows) - ROWS} more link ends are in drops.parquet" if len(rows) > ROWS else "",
            )
        )
    return Chapter("Links", items)


def _busiest_items(run: ConcludedRun) -> Iterator[Item]:
    if run.table(LINKS_JOURNAL) is None:
        yield "How busy links were over time this run did not record."
        return
    if not (loads := busiest(run, SHOWN)):
        yield "No link has carried anything."
        return
    waits = any(load.waiting_byte.any() for load in loads)
    yield Picture(
        "links-busy",
        partial(_draw, run, loads, waits),
        f"The {len(loads)} busiest directions of links: bits sent in each interval between two samples. "
        + (
            "Below: bytes on the link at the samples, in flight or waiting before it."
            if waits
            else "At none of the samples was anything in flight or waiting."
        ),
        "Rate over time; at the most "
        + ", ".join(f"{load.name} {rate_text(float(load.rate_bit_s.max()))}" for load in loads[:3])
        + ".",
    )
    yield DataTable(
        "The busiest directions of links",
        ("from → to", "carried", "packets", "highest rate", "of the link's", "mean", "dropped", "marked"),
        [
            (
                load.name,
                size_text(load.totals["sent_byte"]),
                f"{load.totals['sent_packets']:,}",
                rate_text(float(load.rate_bit_s.max())),
                _share_text(float(load.used_ratio.max())),
                _share_text(_mean_ratio(run.plan, load)),
                f"{sum(load.totals.get(f'dropped_{cause}', 0) for cause in CAUSES):,}",
                f"{load.totals['marked']:,}",
            )
            for load in loads
        ],
        rest="all directions are in links.parquet",
    )


def busiest(run: ConcludedRun, count: int) -> list[LinkLoad]:
    """The directions of links that carried most bytes, the first ones first."""
    table = run.table(LINKS_JOURNAL)
    if table is None or not len(table):
        return []
    names = {name: number for number, name in enumerate(run.plan.nodes.names)}
    ends = np.array([
        [names[name] for name in table[column].combine_chunks().dictionary_decode().to_pylist()]
        for column in ("node", "peer")
    ])  # fmt: skip
    keys = ends[0].astype(np.int64) * len(names) + ends[1]
    t_ns, sent_byte = (table[column].to_numpy() for column in ("t_ns", "sent_byte"))
    order = np.lexsort([t_ns, keys])
    first = np.flatnonzero(np.diff(keys[order], prepend=-1))
    last = np.append(first[1:], len(order)) - 1
    most = [at for at in np.argsort(-sent_byte[order[last]], kind="stable")[:count] if sent_byte[order[last[at]]]]
    return [_load(run, table, order[first[at] : last[at] + 1]) for at in most]


def _load(run: ConcludedRun, table: Any, rows: np.ndarray) -> LinkLoad:
    own = table.take(rows)
    totals = own.slice(len(own) - 1).to_pylist()[0]
    t_ns, sent_byte = own["t_ns"].to_numpy(), own["sent_byte"].to_numpy()
    interval_ns = run.scenario.counters.interval_ns
    before_ns = np.maximum(np.append(0, t_ns[:-1]), (t_ns - 1) // interval_ns * interval_ns)
    capacity = _capacity_bit(run.plan, totals["node"], totals["peer"])
    could_bit = np.interp(t_ns, *capacity) - np.interp(before_ns, *capacity)
    sent_bit = np.diff(sent_byte, prepend=0) * 8.0
    used = np.divide(sent_bit, could_bit, out=np.zeros(len(rows)), where=could_bit > 0)
    rate_bit_s = sent_bit / np.maximum(t_ns - before_ns, 1) * NS_PER_S
    waiting = own["backlog_byte"].to_numpy() + own["waiting_byte"].to_numpy()
    return LinkLoad(f"{totals['node']} → {totals['peer']}", before_ns, t_ns, rate_bit_s, used, waiting, totals)


def _capacity_bit(plan: LinkPlan, node: str, peer: str) -> tuple[np.ndarray, np.ndarray]:
    """What a direction of a link could have carried from the start on: instants in ns, and bits; both (K + 1,)."""
    a, b = sorted((plan.nodes.index(node), plan.nodes.index(peer)))
    (link,) = np.flatnonzero((plan.links.a == a) & (plan.links.b == b))
    k, rows = plan.rows_of_link(int(link))
    rate_bit_s = np.zeros(plan.grid.count)
    rate_bit_s[k] = (rows.rate_ab_bit_s if plan.nodes.index(node) == a else rows.rate_ba_bit_s) * plan.rate_scale
    bits = np.concatenate([[0.0], np.cumsum(rate_bit_s) * (plan.grid.step_ns / NS_PER_S)])
    return np.arange(plan.grid.count + 1) * plan.grid.step_ns, bits


def _mean_ratio(plan: LinkPlan, load: LinkLoad) -> float:
    """Over all of the time for which the link was up."""
    bits = _capacity_bit(plan, load.totals["node"], load.totals["peer"])[1][-1]
    return float(load.totals["sent_byte"] * 8 / bits) if bits else 0.0


def rate_text(rate_bit_s: float) -> str:
    """A rate with three digits in the unit that suits it."""
    for size, unit in ((1e9, "Gbit/s"), (1e6, "Mbit/s"), (1e3, "kbit/s")):
        if rate_bit_s >= size:
            return f"{three_digits(rate_bit_s / size)} {unit}"
    return f"{rate_bit_s:.0f} bit/s"


def _share_text(ratio: float) -> str:
    return share(ratio) if ratio >= 0.001 or not ratio else "< 0.1%"


def _draw(run: ConcludedRun, loads: Sequence[LinkLoad], waits: bool) -> Figure:
    from isl_emu.show.style import calm, line_style, new_figure, plan_axis  # noqa: PLC0415  slow to import

    figure = new_figure(4.6 if waits else 2.8)
    stack = figure.subplots(1 + waits, 1, sharex=True, squeeze=False).ravel()
    most = max(float(load.rate_bit_s.max()) for load in loads)
    unit, size = next(
        ((unit, size) for unit, size in (("Gbit/s", 1e9), ("Mbit/s", 1e6)) if most >= size), ("kbit/s", 1e3)
    )
    for number, load in enumerate(loads):
        t_s, rates = [0.0], [0.0]
        spells = np.column_stack([load.begin_ns, load.end_ns]) / NS_PER_S
        for (begin_s, end_s), rate in zip(spells.tolist(), (load.rate_bit_s / size).tolist(), strict=True):
            if begin_s > t_s[-1]:  # nothing went over it in between
                t_s += [t_s[-1], begin_s]
                rates += [0.0, 0.0]
            t_s += [begin_s, end_s]
            rates += [rate, rate]
        stack[0].plot(
            [*t_s, t_s[-1], run.plan.grid.duration_ns / NS_PER_S],
            [*rates, 0.0, 0.0],
            label=load.name,
            **line_style(number),
        )
        if waits:
            stack[1].plot(load.end_ns / NS_PER_S, load.waiting_byte / 1e3, marker=".", **line_style(number))
            stack[1].set_ylabel("on the link (kB)")
    stack[0].set_ylabel(unit)
    stack[0].legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    for axes in stack:
        axes.set_ylim(bottom=0)
        calm(axes)
    plan_axis(stack[-1], run.plan)
    return figure
