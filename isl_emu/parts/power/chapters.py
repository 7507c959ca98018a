"""The chapter of a report on energy and heat: what Sun, batteries and radiators left over the time of the run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import pyarrow as pa
from matplotlib.figure import Figure

from isl_emu.parts.finished_run import ConcludedRun
from isl_emu.parts.power.results import ENERGY_HEADER, computing_facts, energy_rows, energy_totals
from isl_emu.runs.journal import REQUESTS_JOURNAL
from isl_emu.scenario.power import WHOLE
from isl_emu.scenario.quantities import ZERO_CELSIUS_K
from isl_emu.show.chapter import Chapter, DataTable, Picture
from isl_emu.show.style import calm, line_style, new_figure, plan_axis
from isl_emu.tables.text import share
from isl_emu.units import NS_PER_S

PARTS = 6  # of the constellation, in a picture
QUANTITIES = {  # by column
    "solar_w": "panels",
    "board_w": "computer",
    "charge_ratio": "charge (%)",
    "temperature_k": "temperature (degC)",
    "pace_ratio": "allowed pace (%)",
}


def power_chapter(run: ConcludedRun) -> Iterator[Chapter]:
    """Nothing for a run without power."""
    energy = run.table("energy")
    if energy is None or not energy.num_rows:
        return
    totals = energy_totals(energy, run.rows(REQUESTS_JOURNAL), run.scenario)
    one = totals[WHOLE]
    computed = computing_facts(one)
    groups = {label: members for label, members in run.scenario.power_parts.items() if label != WHOLE}
    shown = dict(list((groups or run.scenario.power_parts).items())[:PARTS])
    yield Chapter(
        "Energy and heat",
        [
            f"{computed[0].upper()}{computed[1:]}.",
            Picture(
                "energy",
                partial(_draw, run, energy, {label: sorted(members) for label, members in shown.items()}),
                "Means over the satellites of each part, and behind them the least to the most of any: what the panels "
                "could give, what the computer drew, the battery's charge, the temperature, and the share of its full "
                "pace that the computer was allowed.",
                f"Curves over time. In shadow {share(one.eclipse_ratio)} of the time; the lowest charge is "
                f"{share(one.charge_min_ratio)}, the highest temperature {one.temperature_max_k - ZERO_CELSIUS_K:.0f} "
                "degrees Celsius.",
            ),
            DataTable(
                "Means over satellites and time; charge and temperature: the worst of any",
                ENERGY_HEADER,
                energy_rows(totals),
            ),
        ],
    )


def _draw(run: ConcludedRun, energy: pa.Table, parts: dict[str, Sequence[str]]) -> Figure:
    figure = new_figure(1.25 * len(QUANTITIES) + 0.6)
    stack = figure.subplots(len(QUANTITIES), 1, sharex=True)
    names = energy.column("satellite").combine_chunks().cast(pa.string()).dictionary_encode()
    numbers, known = names.indices.to_numpy(), np.array(names.dictionary.to_pylist())
    t_ns = energy.column("t_ns").to_numpy()
    for axes, (column, label) in zip(stack, QUANTITIES.items(), strict=True):
        values, with_unit = _in_its_unit(energy.column(column).to_numpy(), column, label)
        for number, (part, members) in enumerate(parts.items()):
            mine = np.isin(known, members)[numbers]
            instants, place = np.unique(t_ns[mine], return_inverse=True)
            own, style = values[mine], line_style(number)
            mean = np.bincount(place, own) / np.bincount(place)
            low, high = np.full(len(instants), np.inf), np.full(len(instants), -np.inf)
            np.minimum.at(low, place, own)
            np.maximum.at(high, place, own)
            t_s = instants / NS_PER_S
            axes.fill_between(t_s, low, high, color=style["color"], alpha=0.2, linewidth=0)
            axes.plot(t_s, mean, label=part, **style)
        axes.set_ylabel(with_unit)
        calm(axes)
        if "%" in label:
            axes.set_ylim(-3, 103)
        elif column.endswith("_w"):
            axes.set_ylim(bottom=0)
    figure.align_ylabels(list(stack))
    stack[0].legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    plan_axis(stack[-1], run.plan)
    return figure


def _in_its_unit(values: np.ndarray, column: str, label: str) -> tuple[np.ndarray, str]:
    """The values of a column in the unit that is shown, and the label with it."""
    if column == "temperature_k":
        return values - ZERO_CELSIUS_K, label
    if column.endswith("_ratio"):
        return values * 100.0, label
    size_w, unit = next((one for one in ((1e6, "MW"), (1e3, "kW")) if values.max() >= 2 * one[0]), (1.0, "W"))
    return values / size_w, f"{label} ({unit})"
