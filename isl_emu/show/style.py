"""How all pictures look: sizes, fonts, and colours that every eye can tell apart."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, MultipleLocator, NullFormatter

from isl_emu.errors import ScenarioError
from isl_emu.linkplan.plan import LinkKind, LinkPlan
from isl_emu.units import NS_PER_S

# M. Okabe and K. Ito, Color universal design, 2008
BLACK, ORANGE, SKY, GREEN, YELLOW = "#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442"
BLUE, VERMILION, PURPLE = "#0072B2", "#D55E00", "#CC79A7"
CYCLE = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION, BLACK, YELLOW)
DASHES = ("-", "--", ":", "-.")  # beside the colours: for those who see none, and for lines upon each other
KIND_COLOR = {
    LinkKind.INTRA_PLANE: GREEN,
    LinkKind.INTER_PLANE: PURPLE,
    LinkKind.INTER_SHELL: VERMILION,
    LinkKind.GROUND: ORANGE,
    LinkKind.TERRESTRIAL: BLACK,
}
# (name, s, shown from a duration of so many s on); and where ticks may be
TIME_UNITS = (("days", 86400, 3 * 86400), ("h", 3600, 2 * 3600), ("min", 60, 600), ("s", 1, 0))
TIME_STEPS = {"h": (0.25, 0.5, 1, 2, 3, 6), "min": (1, 2, 5, 10, 15), "days": (0.5, 1, 2, 5, 10, 20, 50)}
PLAIN_STEPS = (1, 2, 5, 10, 20, 30, 60)
TICKS_AT_MOST = 12
DENSE = 3000  # marks
QUIET, LAND, SEA = "#8a8a8a", "#e8e4da", "#f7fafc"
WIDTH_IN = 7.1  # the text of a page of A4 or Letter, and both columns of a journal
DPI = 200
PAPER: dict[Any, Any] = {  # fonts as large as a caption's where the picture has its own size
    "font.size": 8,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Arial", "Helvetica", "sans-serif"],
    "axes.titlesize": 9,
    "axes.linewidth": 0.6,
    "axes.labelsize": 8,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "lines.linewidth": 1.3,
    "svg.fonttype": "none",  # text stays text: small, found by a search, changed by an editor
    "text.parse_math": False,  # a dollar in a name is one
    "pdf.fonttype": 42,  # TrueType: what publishers ask for
}
# What would differ between equal pictures: the time, and the version of matplotlib.
METADATA = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}


def paper() -> AbstractContextManager[None]:
    """Where figures are drawn and saved in this style: fonts and lines, for a paper and a page alike."""
    return rc_context(PAPER)


def new_figure(height_in: float) -> Figure:
    """A figure as wide as a page, which draws to memory, whatever screen there is."""
    figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def line_style(index: int) -> dict[str, Any]:
    """Colour and dash of the line number `index`; the first 32 differ."""
    turn = index // len(CYCLE)
    return {"color": CYCLE[index % len(CYCLE)], "linestyle": DASHES[(index + turn) % len(DASHES)]}


def title(axes: Axes, what: str, where: str = "") -> None:
    """What a picture shows, and under it, smaller, of what."""
    axes.set_title(what + (f"\n{where}" if where else ""), loc="left")


def time_axis(axes: Axes, duration_s: float, start: str) -> None:
    """The time since the start as the horizontal axis, in the unit that suits it; the data are in s."""
    unit, unit_s = next(((name, size_s) for name, size_s, least_s in TIME_UNITS if duration_s >= least_s))
    steps = TIME_STEPS.get(unit, PLAIN_STEPS)
    step = next((step for step in steps if duration_s / unit_s / step <= TICKS_AT_MOST), None)
    axes.set_xlim(0, duration_s)
    axes.set_xlabel(f"time since {start} UTC ({unit})")
    axes.xaxis.set_major_locator(MultipleLocator(step * unit_s) if step else MaxNLocator(10))
    axes.xaxis.set_major_formatter(lambda t_s, _: f"{t_s / unit_s:g}")


def plan_axis(axes: Axes, plan: LinkPlan) -> None:
    """The whole plan's time as the horizontal axis; the data are in s."""
    time_axis(axes, plan.grid.duration_ns / NS_PER_S, f"{plan.grid.start:%Y-%m-%d %H:%M:%S}")


def plain_figures(axis: Axis) -> None:
    """Powers of ten on a logarithmic axis as plain figures."""
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def calm(axes: Axes) -> None:
    """A light grid behind the data, and no box around it."""
    axes.grid(True, color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def dots(axes: Axes, x: np.ndarray, y: np.ndarray, mark: str, color: str, label: str) -> None:
    """A mark for each value; very many are smaller, and an image within the picture."""
    many = len(x) > DENSE
    axes.plot(x, y, mark, color=color, label=label, markersize=1.5 if many else 3.5, alpha=0.8, rasterized=many)


def check_formats(formats: Sequence[str]) -> None:
    """Refuse what is no format of pictures.

    Raises:
        ScenarioError: which it is, and what there is.
    """
    if unknown := [name for name in formats if name not in METADATA]:
        raise ScenarioError(f"format: is {unknown[0]!r}, but a picture is {', '.join(METADATA)}; name one of them")


def save(figure: Figure, path: Path) -> Path:
    """Write the figure, in the format of the path's suffix (PNG, SVG or PDF); equal pictures give equal files."""
    path.write_bytes(encoded(figure, path.stem, path.suffix[1:]))
    return path


def encoded(figure: Figure, name: str, form: str) -> bytes:
    """The figure as a file's bytes, in the format "png", "svg" or "pdf"; equal pictures give equal bytes."""
    file = BytesIO()
    with rc_context({"svg.hashsalt": name}):
        figure.savefig(file, format=form, dpi=DPI, metadata=METADATA[form])
    return file.getvalue()
