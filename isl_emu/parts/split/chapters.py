"""The chapter of a report on split models: the passes of their tokens, beside what the plan predicts."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
from matplotlib.figure import Figure

from isl_emu.parts.finished_run import ConcludedRun, Rows
from isl_emu.parts.split.results import SPLIT_HEADER, hop_facts, rows_by_head, split_line, token_rows
from isl_emu.show.chapter import Chapter, DataTable, Picture
from isl_emu.show.style import BLACK, BLUE, GREEN, calm, dots, new_figure, plan_axis
from isl_emu.tables.text import Distribution, time_text
from isl_emu.units import NS_PER_MS, NS_PER_S


def split_chapter(run: ConcludedRun) -> Iterator[Chapter]:
    """Nothing for a run without split models, or one that asked none."""
    models = {head: rows for head, rows in rows_by_head(run.rows("split")).items() if token_rows(rows)}
    if not models:
        return
    pictures = []
    for number, (head, rows) in enumerate(models.items()):
        tokens = token_rows(rows)
        loop, predicted = (Distribution.of(row[key] for row in tokens) for key in ("loop_ns", "predicted_ns"))
        pictures.append(
            Picture(
                f"split-{number}",
                partial(_draw, run, tokens),
                f"Passes of single tokens around the satellites of {head}: measured, predicted from computing and "
                "plan, and the computing alone.",
                f"Time of a pass: measured {time_text(loop.p50)}, predicted {time_text(predicted.p50)} in the median.",
            )
        )
    header = DataTable("Means over single tokens", SPLIT_HEADER, [split_line(rows) for rows in models.values()], left=2)
    yield Chapter("Split models", [header, *pictures, *(f"{hop_facts(rows)}." for rows in models.values())])


def _draw(run: ConcludedRun, tokens: Rows) -> Figure:
    figure = new_figure(2.8)
    axes = figure.subplots()
    t_s = np.array([row["t_ns"] for row in tokens]) / NS_PER_S
    computed = [sum(row["compute_ns"]) if None not in row["compute_ns"] else None for row in tokens]
    series = (
        ("measured", [row["loop_ns"] for row in tokens], "o", BLUE),
        ("predicted", [row["predicted_ns"] for row in tokens], "_", BLACK),
        ("computing", computed, "s", GREEN),
    )
    for label, values, mark, color in series:
        known = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
        dots(axes, t_s, known / NS_PER_MS, mark, color, label)
    axes.set_ylabel("time of a pass (ms)")
    axes.set_ylim(bottom=0)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    calm(axes)
    plan_axis(axes, run.plan)
    return figure
