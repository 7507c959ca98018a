"""Curves over time: ranges and rates of links, how many links satellites have, delays of paths, and power balances."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from isl_emu.energy.balance import FleetBalance
from isl_emu.planned import PlannedNetwork
from isl_emu.scenario.quantities import ZERO_CELSIUS_K
from isl_emu.show.measures import degrees, link_series
from isl_emu.show.style import BLUE, SKY, calm, line_style, new_figure, plain_figures, plan_axis, time_axis, title
from isl_emu.units import NS_PER_S

HIDDEN_RATIO = 0.004  # of the axis: lines nearer than that hide each other
PIECE_PT = 9.0


def draw_links(plan: PlannedNetwork, links: Sequence[int]) -> Figure:
    """Range and rate of the links with these numbers; a gap is a time when the link is down."""
    figure = new_figure(4.6)
    ranges, rates = figure.subplots(2, 1, sharex=True)
    for number, link in enumerate(links):
        series, style = link_series(plan.link_plan, link), line_style(number)
        name = f"{plan.nodes[plan.link_plan.links.a[link]]} - {plan.nodes[plan.link_plan.links.b[link]]}"
        t_s = _edges_s(plan)
        ranges.plot(t_s[:-1], series.range_km, label=name, **style)
        rates.step(t_s, _held(series.rate_ab_bit_s / 1e9), where="post", label=name, **style)
        if not np.array_equal(series.rate_ab_bit_s, series.rate_ba_bit_s, equal_nan=True):
            back = {**style, "alpha": 0.45, "linewidth": 3}
            rates.step(t_s, _held(series.rate_ba_bit_s / 1e9), where="post", label=f"{name}, backwards", **back)
    title(ranges, f"Range of links of {plan.scenario.name}")
    title(rates, "Rate that the link carries (physical)")
    ranges.set_ylabel("range (km)")
    rates.set_ylabel("rate (Gbit/s)")
    values = np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in rates.lines] or [np.ones(1)])
    values = values[np.isfinite(values) & (values > 0)]
    if len(values) and np.log10(values.max() / values.min()) > 1.5:
        rates.set_yscale("log")
        plain_figures(rates.yaxis)
    _finish(plan, ranges, rates)
    return figure


def draw_degree(plan: PlannedNetwork) -> Figure:
    """How many links (lasers and ground links) the satellites have at each instant."""
    figure, degree, t_s = new_figure(2.6), degrees(plan.link_plan), _edges_s(plan)
    axes = figure.subplots()
    low, high = _held(degree.least.astype(float)), _held(degree.most.astype(float))
    axes.fill_between(t_s, low, high, step="post", color=SKY, alpha=0.35, linewidth=0, label="least to most")
    axes.step(t_s, _held(degree.mean), where="post", color=BLUE, linewidth=2, label="mean")
    axes.set_ylim(0, max(degree.most.max(), 1) + 0.5)
    axes.set_ylabel("links of a satellite")
    title(axes, f"Degree over time: links of each satellite of {plan.scenario.name}, lasers and ground links")
    _finish(plan, axes)
    return figure


def draw_path_delays(plan: PlannedNetwork, pairs: Sequence[tuple[str, str]]) -> Figure:
    """One-way delay between pairs of nodes; a gap is a time without a route."""
    figure = new_figure(3.2)
    axes = figure.subplots()
    for number, (a, b) in enumerate(pairs):
        delay_ns, style = plan.path_delay_ns(a, b), line_style(number)
        reached = 100 * (1 - np.ma.getmaskarray(delay_ns).mean())
        label = f"{a} to {b}" + ("" if reached == 100 else f"\n(reachable {reached:.1f} % of the time)")
        delay_ms = np.ma.filled(delay_ns.astype(float), np.nan) / 1e6
        axes.step(_edges_s(plan), _held(delay_ms), where="post", label=label, **style)
    axes.set_ylabel("one-way delay (ms)")
    title(axes, f"Path delay in {plan.scenario.name}, policy {plan.scenario.routing.policy}")
    _finish(plan, axes)
    return figure


def _edges_s(plan: PlannedNetwork) -> np.ndarray:
    """The instants and the end of the plan, s, shape (K+1,)."""
    grid = plan.link_plan.grid
    return np.arange(grid.count + 1) * (grid.step_ns / NS_PER_S)


def _held(values: np.ndarray) -> np.ndarray:
    """The values of K instants and, as a state holds until the next instant, the last once more: shape (K+1,)."""
    return np.append(values, values[-1])


def _finish(plan: PlannedNetwork, *stack: Axes) -> None:
    """What all axes of a stack share: a grid, a legend beside it, and one time axis at the bottom."""
    for axes in stack:
        calm(axes)
        if axes.lines:
            axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
            _show_in_turn(axes)  # after the legend, which shows each line whole
        else:
            axes.text(0.5, 0.5, "nothing to show", transform=axes.transAxes, ha="center", va="center")
    plan_axis(stack[-1], plan.link_plan)


def _show_in_turn(axes: Axes) -> None:
    """Let lines that lie on each other show in turn, a piece of each, since the last alone would be seen."""
    low, high = axes.get_ylim()
    alike: list[list[int]] = []
    values = [np.asarray(line.get_ydata(), dtype=float) for line in axes.lines]
    for number, mine in enumerate(values):
        known = (group for group in alike if _on_each_other(values[group[0]], mine, (high - low) * HIDDEN_RATIO))
        group = next(known, None)
        if group is None:
            alike.append(group := [])
        group.append(number)
    for group in alike:
        for turn, number in enumerate(group[1:], start=1):  # over the first, which stays whole
            axes.lines[number].set_linestyle((-turn * PIECE_PT, (PIECE_PT, (len(group) - 1) * PIECE_PT)))
            axes.lines[number].set_dash_capstyle("butt")


def _on_each_other(one: np.ndarray, other: np.ndarray, near: float) -> bool:
    """Whether two lines hide each other most of the time that they have in common."""
    both = np.isfinite(one) & np.isfinite(other)
    return bool(both.any() and np.median(np.abs(one[both] - other[both])) < near)


def draw_balance(balance: FleetBalance) -> Figure:
    """Four curves for each shell: the mean of its satellites, and behind it the least to the most of any."""
    figure = new_figure(6.6)
    stack = figure.subplots(4, 1, sharex=True)
    series, parts, t_s = balance.series, list(balance.parts.items()), balance.grid.offsets_ns / NS_PER_S
    shown = parts[:-1] or parts  # all together only if there is nothing smaller
    quantities: tuple[tuple[str, np.ndarray], ...] = (
        ("in sunlight", balance.sunshine.sunlit.astype(np.float32)),
        ("charge of the battery", series.charge_ratio),
        ("temperature (degC)", series.temperature_k - ZERO_CELSIUS_K),
        ("allowed pace", series.pace_ratio),
    )
    for axes, (label, values) in zip(stack, quantities):
        for number, (part, numbers) in enumerate(shown):
            of_part, style = values[:, numbers], line_style(number)
            if axes is not stack[0]:
                low, high = of_part.min(axis=1), of_part.max(axis=1)
                axes.fill_between(t_s, low, high, color=style["color"], alpha=0.15, linewidth=0)
            axes.plot(t_s, of_part.mean(axis=1), label=part, **style)
        axes.set_ylabel(label)
        calm(axes)
        if "degC" not in label:
            axes.set_ylim(-0.03, 1.03)
    demand = f"computers wanted for {balance.demand_ratio:.0%} of their full work"
    title(stack[0], f"Energy and heat in {balance.scenario.name}, {demand}", "mean of each shell, and least to most")
    stack[0].legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    grid = balance.grid
    time_axis(stack[-1], grid.duration_ns / NS_PER_S, f"{grid.start:%Y-%m-%d %H:%M:%S}")
    return figure
