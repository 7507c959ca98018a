"""A power balance over time: sunlight, charge, temperature and pace of the satellites of each shell."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from isl_emu.energy.balance import FleetBalance
from isl_emu.scenario.quantities import ZERO_CELSIUS_K
from isl_emu.show.style import calm, line_style, new_figure, time_axis, title
from isl_emu.units import NS_PER_S


def draw_balance(balance: FleetBalance) -> Figure:
    """Four curves for each shell: the mean of its satellites, and behind it the least to the most of any."""
    figure = new_figure(11, 9)
    stack = figure.subplots(4, 1, sharex=True)
    series, parts = balance.series, list(balance.parts.items())
    shown = parts[:-1] or parts  # all together only if there is nothing smaller
    quantities: tuple[tuple[str, np.ndarray], ...] = (
        ("in sunlight", balance.sunshine.sunlit.astype(np.float32)),
        ("charge of the battery", series.charge_ratio),
        ("temperature (degC)", series.temperature_k - ZERO_CELSIUS_K),
        ("allowed pace", series.pace_ratio),
    )
    for axes, (label, values) in zip(stack, quantities):
        for number, (part, numbers) in enumerate(shown):
            _curve(axes, balance, values[:, numbers], part, number, band=axes is not stack[0])
        axes.set_ylabel(label)
        calm(axes)
        if "degC" not in label:
            axes.set_ylim(-0.03, 1.03)
    demand = f"computers wanted for {balance.demand_ratio:.0%} of their full work"
    title(stack[0], f"Energy and heat in {balance.scenario.name}, {demand}", "mean of each shell, and least to most")
    stack[0].legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=8)
    grid = balance.grid
    time_axis(stack[-1], grid.duration_ns / NS_PER_S, f"{grid.start:%Y-%m-%d %H:%M:%S}")
    return figure


def _curve(axes: Axes, balance: FleetBalance, values: np.ndarray, part: str, number: int, *, band: bool) -> None:
    """The mean over satellites of values of shape (K, n)."""
    t_s, style = balance.grid.offsets_ns / NS_PER_S, line_style(number)
    if band:
        axes.fill_between(t_s, values.min(axis=1), values.max(axis=1), color=style["color"], alpha=0.15, linewidth=0)
    axes.plot(t_s, values.mean(axis=1), label=part, linewidth=1.2, **style)
