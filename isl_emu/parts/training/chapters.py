"""The chapter of a report on training: its steps over time, what they waited for, and the loss."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial

import numpy as np
from matplotlib.figure import Figure

from isl_emu.parts.finished_run import ConcludedRun, Rows
from isl_emu.parts.training.results import JOURNAL, step_bytes, step_figures, step_rows, steps_by_job
from isl_emu.show.chapter import Chapter, DataTable, Picture
from isl_emu.show.style import BLACK, BLUE, GREEN, ORANGE, VERMILION, calm, dots, new_figure, plan_axis
from isl_emu.tables.text import Distribution, counted, time_text
from isl_emu.units import NS_PER_S


def training_chapters(run: ConcludedRun) -> Iterator[Chapter]:
    """One for each training job."""
    for number, (job, rows) in enumerate(steps_by_job(run.rows(JOURNAL)).items()):
        done = [row for row in rows if row["outcome"] == "completed"]
        satellites = {name for row in rows for name in row["participants"]}
        outcomes = ", ".join(f"{count} {name}" for name, count in Counter(row["outcome"] for row in rows).most_common())
        sums = " and ".join(dict.fromkeys(row["collective"] for row in rows))
        items: list[str | Picture | DataTable] = [
            f"{counted(len(satellites), 'satellite')}, {rows[0]['gradients']} gradients, {sums}. "
            f"{counted(len(rows), 'step')}: {outcomes}. " + " ".join(f"{one}." for one in step_figures(rows, done))
        ]
        if done:
            sums_ns = Distribution.of(row["collective_ns"] for row in done)
            least_ns = Distribution.of(row["predicted_ns"] for row in done)
            losses = [row["loss"] for row in done if row["loss"] is not None]
            items += [
                Picture(
                    f"training-{number}",
                    partial(_draw, run, rows, done),
                    "Each step by when it ended: all of it, the slowest satellite's computing, and the sum from then "
                    "on until all had it; black: the least that the sum takes on the planned paths; crosses: steps "
                    "that were not completed."
                    + (" Below: the training loss, mean of the participants." if losses else ""),
                    f"Steps over time: the sum took {time_text(sums_ns.p50)} in the median, at least "
                    f"{time_text(least_ns.p50)} by the plan."
                    + (f" The loss went from {losses[0]:.3g} to {losses[-1]:.3g}." if losses else ""),
                ),
                DataTable(
                    f"Times of {counted(len(done), 'completed step')}",
                    ("", "", "p50", "p90", "p95", "p99"),
                    step_rows(done),
                    left=2,
                ),
                f"In the median, {step_bytes(done)}.",
            ]
        yield Chapter(f"Training: {job}", items)


def _draw(run: ConcludedRun, rows: Rows, done: Rows) -> Figure:
    losses = np.array([np.nan if row["loss"] is None else row["loss"] for row in done], dtype=np.float64)
    panels = 2 if np.isfinite(losses).any() else 1
    figure = new_figure(1.2 + 1.7 * panels)
    stack = figure.subplots(panels, 1, sharex=True, squeeze=False)[:, 0]
    end_s = np.array([row["t_end_ns"] for row in done]) / NS_PER_S
    lengths_s = np.array([row["t_end_ns"] - row["t_start_ns"] for row in done]) / NS_PER_S
    sum_s, least_s = (
        np.array([np.nan if row[key] is None else row[key] for row in done], dtype=np.float64) / NS_PER_S
        for key in ("collective_ns", "predicted_ns")
    )
    dots(stack[0], end_s, lengths_s, "o", GREEN, "step")
    dots(stack[0], end_s, lengths_s - sum_s, "s", ORANGE, "computing")
    dots(stack[0], end_s, sum_s, "^", BLUE, "sum")
    stack[0].plot(end_s, least_s, "--", color=BLACK, linewidth=1, label="least for the sum, planned")
    if failed := [row["t_end_ns"] for row in rows if row["outcome"] != "completed" and row["t_end_ns"] is not None]:
        at_s = np.array(failed) / NS_PER_S
        stack[0].plot(at_s, np.zeros(len(at_s)), "x", color=VERMILION, label="not completed", clip_on=False, zorder=5)
    stack[0].set_ylabel("time (s)")
    stack[0].set_ylim(bottom=0)
    stack[0].legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    if panels == 2:
        stack[1].plot(end_s, losses, ".-", color=BLUE, linewidth=1)
        stack[1].set_ylabel("loss")
    for axes in stack:
        calm(axes)
    plan_axis(stack[-1], run.plan)
    return figure
