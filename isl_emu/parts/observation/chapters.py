"""The chapter of a report on Earth observation: each image's way from its exposure to the ground."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from matplotlib.figure import Figure

from isl_emu.parts.finished_run import ConcludedRun, Rows
from isl_emu.parts.observation.results import HEADER, TABLE, observation_lines, observation_remarks
from isl_emu.show.chapter import Chapter, DataTable, Picture
from isl_emu.show.style import BLACK, BLUE, GREEN, ORANGE, VERMILION, calm, new_figure, plan_axis
from isl_emu.units import NS_PER_S

SHOWN = 60  # images in the picture
STAGES = (
    ("t_image_sent_ns", "t_image_there_ns", "image to the analyst", ORANGE),
    ("t_begun_ns", "t_analysed_ns", "looked at", GREEN),
    ("t_answer_sent_ns", "t_answer_there_ns", "to the ground", BLUE),
)


def observation_chapter(run: ConcludedRun) -> Iterator[Chapter]:
    """Nothing for a run without images."""
    rows = run.rows(TABLE)
    if not rows:
        return
    shown = rows[:SHOWN]
    lines = observation_lines(run.scenario, rows)
    answered = sum(row["t_answer_there_ns"] is not None for row in rows)
    yield Chapter(
        "Earth observation",
        [
            DataTable(
                "From exposure to answer on the ground; beside it the image itself, by the plan; what was not sent to "
                "the ground, what went over lasers, and the energy of one image",
                HEADER,
                lines,
            ),
            *(f"{remark[0].upper()}{remark[1:]}." for remark in observation_remarks(rows)),
            Picture(
                "observations",
                partial(_draw, run, shown),
                f"Images, one a line{f', the first {SHOWN}' if len(rows) > SHOWN else ''}: black where it was taken, "
                "then on its way to the satellite that looks at it, looked at, and its answer on its way to the "
                "ground; in between it waits. Crosses: when the image itself would have been on the ground, by the "
                "plan.",
                f"{answered} of {len(rows)} images have something on the ground.",
            ),
        ],
    )


def _draw(run: ConcludedRun, rows: Rows) -> Figure:
    figure = new_figure(1.1 + 0.14 * max(len(rows), 6))
    axes = figure.subplots()
    end_ns = run.plan.grid.duration_ns
    for first, last, label, color in STAGES:
        begun = [(place, row) for place, row in enumerate(rows) if row[first] is not None]
        left = [row[first] / NS_PER_S for _, row in begun]
        width = [((end_ns if row[last] is None else row[last]) - row[first]) / NS_PER_S for _, row in begun]
        axes.barh([place for place, _ in begun], width, left=left, height=0.7, color=color, label=label)
    taken = [row["t_exposed_ns"] / NS_PER_S for row in rows]
    axes.plot(taken, range(len(rows)), "|", color=BLACK, markersize=6, label="taken")
    known = [(row["t_image_planned_ns"] / NS_PER_S, place) for place, row in enumerate(rows)
             if row["t_image_planned_ns"] is not None]  # fmt: skip
    if known:
        axes.plot(*zip(*known, strict=True), "x", color=VERMILION, markersize=4, label="image itself, by the plan")
    calm(axes)
    axes.grid(False, axis="y")
    axes.set_yticks(range(len(rows)), [_way(row["satellite"], row["analyst"]) for row in rows], fontsize=6)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    plan_axis(axes, run.plan)
    figure.legend(loc="outside upper center", ncols=3)
    return figure


def _way(satellite: str, analyst: str | None) -> str:
    """Who took an image, and who looks at it if that is another satellite."""
    return satellite if analyst in (None, satellite) else f"{satellite} > {analyst}"
