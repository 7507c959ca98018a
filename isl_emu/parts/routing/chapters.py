"""The chapter of a report on routes by others: how they followed the changes of the sky."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
from matplotlib.figure import Figure

from isl_emu.parts.finished_run import ConcludedRun, Rows
from isl_emu.parts.routing.results import HEADER, convergence_facts, convergence_table
from isl_emu.scenario.routing import PROTOCOL_NAMES
from isl_emu.show.chapter import Chapter, DataTable, Picture
from isl_emu.show.style import BLUE, GREEN, calm, dots, new_figure, plan_axis
from isl_emu.tables.text import time_text
from isl_emu.units import NS_PER_S


def convergence_chapter(run: ConcludedRun) -> Iterator[Chapter]:
    """Nothing for a run whose routes are ours."""
    if not (rows := run.rows("convergence")):
        return
    daemon = run.scenario.routing.daemon
    whose = f"{PROTOCOL_NAMES[daemon.protocol]} of FRR" if daemon else "programs in the nodes"
    cut = sum(row["pairs_cut"] > 0 for row in rows)
    longest = max((row["outage_max_ns"] for row in rows if row["outage_max_ns"] is not None), default=None)
    cells, rest = convergence_table(rows)
    yield Chapter(
        "How routes followed the sky",
        [
            f"Routes were made by {whose}. After {cut} of {len(rows)} changes of the links, pairs of nodes were "
            f"without a working route though the plan had one, for {time_text(longest)} at the most.",
            Picture(
                "convergence",
                partial(_draw, run, rows),
                "Time without a working route after each change of the links, of the pairs that it cut off: the median "
                "pair and the one cut off for longest. Below: how many directed pairs were cut off.",
                f"Outages over time; the longest is {time_text(longest)}.",
            ),
            DataTable(
                "Changes of the links: pairs that the plan joined, those cut off, and for how long", HEADER, cells,
                rest=rest,
            ),
            *(f"{fact[0].upper()}{fact[1:]}." for fact in convergence_facts(rows, daemon.protocol if daemon else None)),
        ],
        network=True,
    )  # fmt: skip


def _draw(run: ConcludedRun, rows: Rows) -> Figure:
    figure = new_figure(3.6)
    top, bottom = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": (3, 2)})
    t_s = np.array([row["t_ns"] for row in rows]) / NS_PER_S
    for label, key, mark, color in (("longest", "outage_max_ns", "o", BLUE), ("median", "outage_p50_ns", "x", GREEN)):
        dots(top, t_s, np.array([row[key] or 0 for row in rows]) / NS_PER_S, mark, color, label)
    dots(bottom, t_s, np.array([row["pairs_cut"] for row in rows], dtype=np.float64), "s", BLUE, "_pairs")
    top.set_ylabel("without a route (s)")
    bottom.set_ylabel("pairs cut off")
    top.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    for axes in (top, bottom):
        axes.set_ylim(bottom=0)
        calm(axes)
    plan_axis(bottom, run.plan)
    return figure
