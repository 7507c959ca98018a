"""The section on energy and heat: what Sun, batteries and radiators left of the satellites' computers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from isl_emu.parts.power.totals import EnergyTotals
from isl_emu.scenario.power import WHOLE
from isl_emu.scenario.quantities import ZERO_CELSIUS_K
from isl_emu.tables.text import facts, share, table, wrapped
from isl_emu.units import format_rate


def energy_section(totals: Mapping[str, EnergyTotals]) -> Iterator[str]:
    yield "ENERGY AND HEAT  (means over satellites and time; charge and temperature: the worst of any)"
    header = ("satellites", "", "in shadow", "charge", "hottest", "slowed", "off", "computers", "in time", "a token")
    yield from table(header, [_row(label, one) for label, one in totals.items()], left=1)
    yield from wrapped("  ", _compute_facts(totals[WHOLE]))


def _row(label: str, one: EnergyTotals) -> tuple[str, ...]:
    joule, limited, off = one.joule_per_token, one.limited_ratio, one.off_ratio
    slowed = None if limited is None or off is None else limited - off
    return (
        label if len(label) <= 20 else f"{label[:17]}...",
        str(one.satellites),
        share(one.eclipse_ratio),
        share(one.charge_min_ratio),
        f"{one.temperature_max_k - ZERO_CELSIUS_K:.0f} degC",
        share(slowed),
        share(one.off_ratio),
        format_rate(one.board_j / one.duration_s, "W") if one.computers else "-",
        f"{one.in_time} of {one.asked}" if one.asked else "-",
        "-" if joule is None else format_rate(joule, "J"),
    )


def _compute_facts(all_of_them: EnergyTotals) -> str:
    one = all_of_them
    if not one.computers:
        return "no satellite with power computes"
    names = "available", "allowed", "used", "served"
    rates = one.available_flop_s, one.allowed_flop_s, one.used_flop_s, one.served_flop_s
    known = [f"{name} {format_rate(rate, 'FLOPS')}" for name, rate in zip(names, rates, strict=True) if rate]
    efficiency = None if one.flop_per_joule is None else format_rate(one.flop_per_joule, "FLOP/J")
    return f"compute: {facts(*known, efficiency)}"
