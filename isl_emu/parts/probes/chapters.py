"""The chapter of a report on probes: measured against planned delay, with what is left over."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from isl_emu.parts.finished_run import ConcludedRun, Rows
from isl_emu.parts.probes.results import delay_table, directions, probe_fidelity
from isl_emu.show.chapter import Chapter, DataTable, Picture
from isl_emu.show.style import BLACK, QUIET, calm, dots, line_style, new_figure, plan_axis
from isl_emu.tables.text import time_text
from isl_emu.units import NS_PER_MS, NS_PER_S

PAIRS = 6  # directions in a picture
DIRECTIONS = 40  # rows of the table
RESIDUAL_UNITS = ((1e6, "ms"), (1e3, "us"), (1, "ns"))


def probes_chapter(run: ConcludedRun) -> Iterator[Chapter]:
    """Nothing for a run without probes."""
    probes = run.rows("probes")
    if not probes:
        return
    by_direction = directions(probes)
    found = probe_fidelity(probes)
    error = found.error_per_hop_ns
    one_way: dict[frozenset[str], tuple[str, str]] = {}
    for pair in by_direction:
        one_way.setdefault(frozenset(pair), pair)
    shown = {pair: by_direction[pair] for pair in list(one_way.values())[:PAIRS]}
    which = "all pairs" if len(shown) == len(one_way) else f"the first {PAIRS} of {len(one_way)} pairs"
    header, listed = delay_table(probes)
    yield Chapter(
        "Planned and measured delay",
        [
            f"{found.sent:,} probes were sent and {found.arrived:,} arrived; what the plan and the run's own traffic "
            f"do not explain is {time_text(error.p50)} a hop in the median, and {time_text(error.max)} at the most.",
            Picture(
                "delay",
                partial(_draw_delays, run, shown),
                f"One-way delay of {which}, in one direction. Lines: planned, that is propagation and the time to send "
                "the probe. Dots: measured. Below: the residual, measured less planned, with a ring "
                "where the probe waited behind the run's own traffic.",
                f"Measured one-way delay over time of {', '.join(f'{a} to {b}' for a, b in shown)}; the residual per "
                f"hop is {time_text(error.p50)} in the median and {time_text(error.max)} at the most.",
            ),
            DataTable(
                "Medians; none during a change of the path. Planned + sending + off by = measured",
                header,
                listed[:DIRECTIONS],
                rest=f"{len(listed) - DIRECTIONS} more directions are in probes.parquet"
                if len(listed) > DIRECTIONS
                else "",
            ),
        ],
        network=True,
    )


def _draw_delays(run: ConcludedRun, shown: Mapping[tuple[str, str], Rows]) -> Figure:
    figure = new_figure(4.4)
    top, bottom = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": (3, 2)})
    residuals = {
        pair: [(row["t_send_ns"] / NS_PER_S, row["error_ns"]) for row in rows if row["error_ns"] is not None]
        for pair, rows in shown.items()
    }
    most_ns = max((abs(error) for series in residuals.values() for _, error in series), default=0)
    unit_ns, unit = next((one for one in RESIDUAL_UNITS if most_ns >= 2 * one[0]), RESIDUAL_UNITS[-1])
    for number, ((a, b), rows) in enumerate(shown.items()):
        style = line_style(number)
        t_s = np.array([row["t_send_ns"] for row in rows]) / NS_PER_S
        planned_ms, measured_ms = (
            np.array([np.nan if row[key] is None else row[key] for row in rows], dtype=np.float64) / NS_PER_MS
            for key in ("planned_delay_ns", "delay_ns")
        )
        sending_ms = np.array([row["planned_serialisation_ns"] or 0 for row in rows]) / NS_PER_MS
        top.step(t_s, planned_ms + sending_ms, where="post", **style, linewidth=1.0, label=f"{a} to {b}")
        dots(top, t_s, measured_ms, ".", style["color"], "_measured")
        left = np.array(residuals[a, b], dtype=np.float64).reshape(-1, 2)
        dots(bottom, left[:, 0], left[:, 1] / unit_ns, "o+xs^v"[number], style["color"], "_residual")
    waited = [row for rows in shown.values() for row in rows if row["error_ns"] != row["excess_ns"]]
    if waited:
        at = np.array([(row["t_send_ns"], row["error_ns"]) for row in waited], dtype=np.float64)
        ring: dict[str, Any] = {"markersize": 6, "markerfacecolor": "none", "markeredgewidth": 0.6, "color": BLACK}
        bottom.plot(at[:, 0] / NS_PER_S, at[:, 1] / unit_ns, "o", label="behind the run's\nown traffic", **ring)
        bottom.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    top.set_ylabel("one-way delay (ms)")
    top.set_ylim(bottom=0)
    bottom.set_ylabel(f"residual ({unit})")
    if most_ns < 10 * unit_ns:
        bottom.set_ylim(-max(1.2 * most_ns / unit_ns, 1.0), max(1.2 * most_ns / unit_ns, 1.0))
    bottom.axhline(0, color=QUIET, linewidth=0.8, zorder=1)
    top.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    calm(top)
    calm(bottom)
    plan_axis(bottom, run.plan)
    return figure
