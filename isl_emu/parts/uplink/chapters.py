"""The chapter of a report on an uplink: who got the file from whom and when, and when each satellite served."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
from matplotlib.figure import Figure

from isl_emu.parts.finished_run import ConcludedRun, Rows
from isl_emu.parts.uplink.results import DELIVERY_HEADER, delivery_line, from_ground, serving_facts
from isl_emu.show.chapter import Chapter, DataTable, Picture
from isl_emu.show.style import BLACK, BLUE, GREEN, ORANGE, VERMILION, calm, new_figure, plan_axis
from isl_emu.tables.text import size_text, time_text
from isl_emu.units import NS_PER_S

SATELLITES = 40  # in the picture and in the table
KIND_LOOKS = {"uplink": ORANGE, "ring": GREEN, "tree": GREEN, "swarm": GREEN}


def uplink_chapter(run: ConcludedRun) -> Iterator[Chapter]:
    """Nothing for a run without an uplink."""
    deliveries, transfers = run.rows("deliveries"), run.rows("transfers")
    if not deliveries:
        return
    held = [row["t_held_ns"] for row in deliveries if row["t_held_ns"] is not None]
    shown = deliveries[:SATELLITES]
    rest = f"{len(deliveries) - SATELLITES} more are in deliveries.parquet" if len(deliveries) > SATELLITES else ""
    up = [item for item in transfers if item["kind"] == "uplink"]
    yield Chapter(
        "Uplink of the model",
        [
            f"{size_text(deliveries[0]['size_byte'])} to {len(deliveries)} satellites: {serving_facts(deliveries)}.",
            *(f"{from_ground(row, up)}." for row in deliveries if row["kind"] == "uplink"),
            Picture(
                "uplink",
                partial(_draw, run, shown, transfers),
                "Each satellite's transfers over time: orange from the ground, green over lasers, hatched if one ended "
                "before all had come. Triangles: it has the whole file, verified; stars: its model server serves.",
                f"{len(held)} of {len(deliveries)} satellites have the whole file"
                + (f", the first at {time_text(min(held))}, the last at {time_text(max(held))}." if held else "."),
            ),
            DataTable(
                "Deliveries",
                DELIVERY_HEADER,
                [delivery_line(row, transfers) for row in shown],
                left=3,
                rest=rest,
            ),
            *(f"{row['satellite']} does not serve: {row['error']}." for row in shown if row["error"]),
        ],
    )


def _draw(run: ConcludedRun, deliveries: Rows, transfers: Rows) -> Figure:
    figure = new_figure(1.1 + 0.2 * max(len(deliveries), 3))
    axes = figure.subplots()
    number = {row["satellite"]: place for place, row in enumerate(deliveries)}
    labelled: set[str] = set()
    for item in transfers:
        if item["destination"] not in number:
            continue
        begin_s, end_s = item["t_start_ns"] / NS_PER_S, item["t_end_ns"] / NS_PER_S
        whole, color = item["outcome"] == "completed", KIND_LOOKS.get(item["kind"], BLUE)
        label = "from the ground" if item["kind"] == "uplink" else "over lasers"
        axes.barh(
            number[item["destination"]], end_s - begin_s, left=begin_s, height=0.6, color=color, edgecolor="white",
            linewidth=0.3, hatch="" if whole else "////", label=f"_{label}" if label in labelled else label,
        )  # fmt: skip
        labelled.add(label)
    for key, mark, color, label in (
        ("t_held_ns", ">", BLACK, "has the file"),
        ("t_serving_ns", "*", VERMILION, "serves"),
    ):
        known = [(row[key] / NS_PER_S, number[row["satellite"]]) for row in deliveries if row[key] is not None]
        if known:
            at = np.array(known)
            axes.plot(at[:, 0], at[:, 1], mark, color=color, markersize=6, label=label, clip_on=False, zorder=5)
    calm(axes)
    axes.grid(False, axis="y")
    axes.set_yticks(range(len(deliveries)), [row["satellite"] for row in deliveries])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(deliveries) - 0.4, -0.6)
    plan_axis(axes, run.plan)
    figure.legend(loc="outside upper center", ncols=4)
    return figure
