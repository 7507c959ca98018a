"""The chapters of a report on probes: measured against planned delay with what is left over, and how paths changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from isl_emu.parts.finished_run import ConcludedRun, Rows
from isl_emu.parts.probes.results import delay_table, directions, probe_fidelity
from isl_emu.show.chapter import Chapter, DataTable, Picture
from isl_emu.show.style import BLACK, CYCLE, DENSE, QUIET, calm, dots, line_style, new_figure, plan_axis
from isl_emu.tables.text import counted, time_text
from isl_emu.timebase import TimeGrid
from isl_emu.units import NS_PER_MS, NS_PER_S

PAIRS = 6  # directions in a picture
DIRECTIONS = 40  # rows of the table
CHANGES = 30  # rows of the table
RESIDUAL_UNITS = ((1e6, "ms"), (1e3, "us"), (1, "ns"))


def probes_chapters(run: ConcludedRun) -> Iterator[Chapter]:
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
    spells = {pair: path_spells(rows, run.plan.grid) for pair, rows in by_direction.items() if pair in shown}
    changes = sorted(
        ((after.from_ns, pair, before, after) for pair, own in spells.items() for before, after in zip(own, own[1:])),
        key=lambda change: (change[0], change[1]),
    )
    yield Chapter(
        "Path changes",
        [
            f"{counted(len(changes), 'change')} of the paths of {which}, as probes met them."
            + ("" if changes else " Every path stayed what it was."),
            Picture(
                "paths",
                partial(_draw_paths, run, spells),
                "The paths over time, a row for each pair; a bar is one path and names its hops, a gap a time without "
                "a path. Another colour is another path.",
                "Bars over time. "
                + " ".join(f"{a} to {b}: {counted(len(own), 'path')}." for (a, b), own in spells.items()),
            ),
            *(
                [
                    DataTable(
                        "When a path changed, and its planned delay before and after",
                        ("from, to", "before", "after", "at", "hops", "delay before", "after"),
                        [_change_row(*change) for change in changes[:CHANGES]],
                        left=3,
                        rest=f"{len(changes) - CHANGES} more are in probes.parquet" if len(changes) > CHANGES else "",
                    )
                ]
                if changes
                else []
            ),
        ],
        network=True,
    )


@dataclass(frozen=True)
class PathSpell:
    """A time for which a path stayed the same; None without one. Delays are planned ones at its begin and end, ns."""

    path: tuple[str, ...] | None
    from_ns: int
    to_ns: int
    first_delay_ns: int | None
    last_delay_ns: int | None


def path_spells(probes: Rows, grid: TimeGrid) -> list[PathSpell]:
    """The paths of one direction in the order of time, as its probes met them.

    A path begins with the instant of the first probe that met it, or with the last probe before, if that is later.
    """
    spells: list[PathSpell] = []
    end_ns, before_ns = grid.duration_ns, 0
    for row in sorted(probes, key=lambda row: row["t_send_ns"]):
        path = tuple(row["path"]) if row["path"] is not None else None
        delay_ns, t_ns = row["planned_delay_ns"], row["t_send_ns"]
        if spells and spells[-1].path == path:
            spells[-1] = replace(spells[-1], last_delay_ns=delay_ns)
        else:
            from_ns = max(before_ns, grid.instant_at(t_ns) * grid.step_ns) if spells else 0
            spells[-1:] = [replace(one, to_ns=from_ns) for one in spells[-1:]]
            spells.append(PathSpell(path, from_ns, end_ns, delay_ns, delay_ns))
        before_ns = t_ns
    return spells


def _change_row(t_ns: int, pair: tuple[str, str], before: PathSpell, after: PathSpell) -> tuple[str, ...]:
    hops = [str(len(one.path) - 1) if one.path else "-" for one in (before, after)]
    return (
        f"{pair[0]} → {pair[1]}",
        _via(before.path),
        _via(after.path),
        f"{t_ns / NS_PER_S:.3f} s",
        " → ".join(hops),
        time_text(before.last_delay_ns),
        time_text(after.first_delay_ns),
    )


def _via(path: Sequence[str] | None) -> str:
    """What is between the ends of a path; of a long one its first and last nodes."""
    if path is None:
        return "no path"
    between = list(path[1:-1])
    if len(between) > 4:
        between = [*between[:2], "...", *between[-2:]]
    return " ".join(between) if between else "direct"


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


def _draw_paths(run: ConcludedRun, spells: Mapping[tuple[str, str], Sequence[PathSpell]]) -> Figure:
    figure = new_figure(0.9 + 0.32 * max(len(spells), 2))
    axes, duration_s = figure.subplots(), run.plan.grid.duration_ns / NS_PER_S
    for row, own in enumerate(spells.values()):
        bars = [one for one in own if one.path]
        number = {path: place for place, path in enumerate(dict.fromkeys(one.path for one in bars))}
        spans_s = [(one.from_ns / NS_PER_S, (one.to_ns - one.from_ns) / NS_PER_S) for one in bars]
        colors = [BARS[number[one.path] % len(BARS)] for one in bars]
        many = len(bars) > DENSE / PAIRS
        style: dict[str, Any] = {
            "facecolors": colors,
            "edgecolor": "white",
            "linewidth": 0.0 if many else 0.6,
            "rasterized": many,
        }
        axes.broken_barh(spans_s, (row - 0.36, 0.72), **style)
        for one, (begin_s, long_s) in zip(bars, spans_s, strict=True):
            name = counted(len(one.path or ()) - 1, "hop")
            if long_s / duration_s > 0.013 * len(name):
                axes.text(begin_s + long_s / 2, row, name, ha="center", va="center", fontsize=6.5, clip_on=True)
    calm(axes)
    axes.grid(False, axis="y")
    axes.set_yticks(range(len(spells)), [f"{a} to {b}" for a, b in spells])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(spells) - 0.4, -0.6)
    plan_axis(axes, run.plan)
    return figure


BARS = (CYCLE[4], CYCLE[1], CYCLE[3], CYCLE[7], CYCLE[2])  # those on which black text can be read
