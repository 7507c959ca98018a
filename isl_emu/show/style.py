"""How all pictures look: sizes, fonts, and colours that every eye can tell apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from isl_emu.linkplan.plan import LinkKind

# M. Okabe and K. Ito, Color universal design, 2008
BLACK, ORANGE, SKY, GREEN, YELLOW = "#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442"
BLUE, VERMILION, PURPLE = "#0072B2", "#D55E00", "#CC79A7"
CYCLE = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION, BLACK, YELLOW)
DASHES = ("-", "--", ":", "-.")  # beyond the colours, and for those who see none
KIND_COLOR = {
    LinkKind.INTRA_PLANE: GREEN,
    LinkKind.INTER_PLANE: PURPLE,
    LinkKind.INTER_SHELL: VERMILION,
    LinkKind.GROUND: ORANGE,
}
QUIET, LAND, SEA = "#8a8a8a", "#e8e4da", "#f7fafc"
DPI = 130
PNG_METADATA = {"Software": None}  # no version of matplotlib in the file


def new_figure(width_in: float, height_in: float) -> Figure:
    """A figure that draws to memory, whatever screen there is."""
    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def line_style(index: int) -> dict[str, Any]:
    """Colour and dash of the line number `index`; the first 32 differ."""
    return {"color": CYCLE[index % len(CYCLE)], "linestyle": DASHES[index // len(CYCLE) % len(DASHES)]}


def title(axes: Axes, what: str, where: str = "") -> None:
    """What a picture shows, and under it, smaller, of what."""
    axes.set_title(what + (f"\n{where}" if where else ""), loc="left", fontsize=11)


def time_axis(axes: Axes, duration_s: float, start: str) -> None:
    """The time since the start as the horizontal axis."""
    axes.set_xlim(0, duration_s)
    axes.set_xlabel(f"time since {start} UTC (s)")
    axes.xaxis.set_major_locator(MaxNLocator(10))


def calm(axes: Axes) -> None:
    """A light grid behind the data, and no box around it."""
    axes.grid(True, color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def save(figure: Figure, path: Path) -> Path:
    """Write the figure as PNG; equal pictures give equal files."""
    figure.savefig(path, dpi=DPI, metadata=PNG_METADATA)
    return path
