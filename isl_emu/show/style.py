"""How all pictures look: sizes, fonts, and colours that every eye can tell apart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, MultipleLocator

from isl_emu.errors import ScenarioError
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
# (name, s, shown from a duration of so many s on); and where ticks may be
TIME_UNITS = (("days", 86400, 3 * 86400), ("h", 3600, 2 * 3600), ("min", 60, 600), ("s", 1, 0))
TIME_STEPS = {"h": (0.25, 0.5, 1, 2, 3, 6), "min": (1, 2, 5, 10, 15), "days": (0.5, 1, 2, 5, 10, 20, 50)}
PLAIN_STEPS = (1, 2, 5, 10, 20, 30, 60)
TICKS_AT_MOST = 12
QUIET, LAND, SEA = "#8a8a8a", "#e8e4da", "#f7fafc"
DPI = 130
# What would differ between equal pictures: the time, and the version of matplotlib.
METADATA = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}


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
    """The time since the start as the horizontal axis, in the unit that suits it; the data are in s."""
    unit, unit_s = next(((name, size_s) for name, size_s, least_s in TIME_UNITS if duration_s >= least_s))
    steps = TIME_STEPS.get(unit, PLAIN_STEPS)
    step = next((step for step in steps if duration_s / unit_s / step <= TICKS_AT_MOST), None)
    axes.set_xlim(0, duration_s)
    axes.set_xlabel(f"time since {start} UTC ({unit})")
    axes.xaxis.set_major_locator(MultipleLocator(step * unit_s) if step else MaxNLocator(10))
    axes.xaxis.set_major_formatter(lambda t_s, _: f"{t_s / unit_s:g}")


def calm(axes: Axes) -> None:
    """A light grid behind the data, and no box around it."""
    axes.grid(True, color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def check_formats(formats: Sequence[str]) -> None:
    """Refuse what is no format of pictures.

    Raises:
        ScenarioError: which it is, and what there is.
    """
    if unknown := [name for name in formats if name not in METADATA]:
        raise ScenarioError(f"format: is {unknown[0]!r}, but a picture is {', '.join(METADATA)}; name one of them")


def save(figure: Figure, path: Path) -> Path:
    """Write the figure, in the format of the path's suffix (PNG, SVG or PDF); equal pictures give equal files."""
    with rc_context({"svg.hashsalt": path.stem}):
        figure.savefig(path, dpi=DPI, metadata=METADATA[path.suffix[1:]])
    return path
