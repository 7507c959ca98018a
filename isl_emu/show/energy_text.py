"""A power balance in words and columns."""

from __future__ import annotations

import numpy as np

from isl_emu.arrays import Floats
from isl_emu.energy.balance import FleetBalance
from isl_emu.scenario.quantities import ZERO_CELSIUS_K
from isl_emu.show.text import columns
from isl_emu.units import DURATION_NS, NS_PER_S, format_quantity, format_rate


def balance_text(balance: FleetBalance) -> str:
    """Satellites by shell, and what the constellation can compute; ends with a newline."""
    heads = (
        "satellites", "", "in shadow", "charge", "hottest", "slowed", "off",
        "pace", "sustainable", "allowed", "computers", "unmet",
    )  # fmt: skip
    rows = [_row(label, numbers, balance) for label, numbers in balance.parts.items()]
    return "\n".join([*_head(balance), "", *columns(heads, rows), "", *_constellation(balance)]) + "\n"


def _head(balance: FleetBalance) -> list[str]:
    grid, scenario = balance.grid, balance.scenario
    duration, step = (format_quantity(value, DURATION_NS) for value in (grid.duration_ns, grid.step_ns))
    return [
        scenario.name + (f": {scenario.description}" if scenario.description else ""),
        f"{duration} from {grid.start:%Y-%m-%d %H:%M:%S} UTC in steps of {step}; "
        f"every computer is wanted for {balance.demand_ratio:.0%} of its full work",
    ]


def _row(label: str, numbers: np.ndarray, balance: FleetBalance) -> tuple[str, ...]:
    table = balance.satellites.take(numbers).to_pydict()

    def mean(name: str) -> str:
        values = [value for value in table[name] if value is not None]
        return f"{np.mean(values):.1%}" if values else "-"

    slowed = [limited - off for limited, off in zip(table["limited_ratio"], table["off_ratio"]) if off is not None]
    return (
        label,
        str(len(numbers)),
        mean("eclipse_ratio"),
        f"{min(table['charge_min_ratio']):.0%}",
        f"{max(table['temperature_max_k']) - ZERO_CELSIUS_K:.0f} degC",
        f"{np.mean(slowed):.1%}" if slowed else "-",
        mean("off_ratio"),
        mean("pace_ratio"),
        mean("sustainable_ratio"),
        format_rate(_allowed_flop_s(balance)[numbers].sum(), "FLOPS"),
        format_rate(sum(table["board_w"]), "W"),
        format_rate(sum(table["unmet_w"]), "W"),
    )


def _allowed_flop_s(balance: FleetBalance) -> np.ndarray:
    """What each may do on average, shape (N,)."""
    allowed_flop_s: Floats = balance.series.pace_ratio.mean(axis=0, dtype=float) * balance.flop_s
    return allowed_flop_s


def _constellation(balance: FleetBalance) -> list[str]:
    """What all computers together could do, may do, and do for a joule."""
    flop_s, boards = balance.flop_s, balance.scenario.boards
    if not flop_s.any():
        return ["no satellite with power computes"]
    int8_ops_s = sum(boards[name].int8_ops_s for name in balance.names if name in boards)
    allowed_flop_s = _allowed_flop_s(balance).sum()
    used = np.minimum(balance.series.pace_ratio, balance.demand_ratio).mean(axis=0, dtype=float) @ flop_s
    board_w = balance.series.board_w.mean(axis=0, dtype=float).sum()
    hours = balance.grid.duration_ns / NS_PER_S / 3600
    efficiency = f", {format_rate(used / board_w, 'FLOP/J')}" if board_w else ""
    return [
        f"available {format_rate(flop_s.sum(), 'FLOPS')} (16 bits), {format_rate(int8_ops_s, 'OPS')} (8 bits)",
        f"allowed   {format_rate(allowed_flop_s, 'FLOPS')} ({allowed_flop_s / flop_s.sum():.1%})",
        f"used      {format_rate(used, 'FLOPS')} with {format_rate(board_w * hours, 'Wh')}{efficiency}",
    ]
