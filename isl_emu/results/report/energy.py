"""The section on energy and heat: what Sun, batteries and radiators left of the satellites' computers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from isl_emu.results.energy_totals import WHOLE, EnergyTotals
from isl_emu.results.report.text import facts, share, table, three_digits, wrapped
from isl_emu.scenario.quantities import ZERO_CELSIUS_K

PREFIXES = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"))


def energy_section(totals: Mapping[str, EnergyTotals]) -> Iterator[str]:
    yield "ENERGY AND HEAT  (means over satellites and time; charge and temperature: the worst of any)"
    header = ("satellites", "", "in shadow", "charge", "hottest", "slowed", "off", "computers", "in time", "J/token")
    yield from table(header, [_row(label, one) for label, one in totals.items()], left=1)
    yield from wrapped("  ", _compute_facts(totals[WHOLE]))


def _row(label: str, one: EnergyTotals) -> tuple[str, ...]:
    joule = one.joule_per_token
    slowed = None if one.limited_ratio is None else one.limited_ratio - one.off_ratio
    return (
        label if len(label) <= 20 else f"{label[:17]}...",
        str(one.satellites),
        share(one.eclipse_ratio),
        share(one.charge_min_ratio),
        f"{one.temperature_max_k - ZERO_CELSIUS_K:.0f} degC",
        share(slowed),
        share(one.off_ratio),
        f"{three_digits(one.board_j / one.duration_s)} W" if one.computers else "-",
        f"{one.in_time} of {one.asked}" if one.asked else "-",
        "-" if joule is None else three_digits(joule),
    )


def _compute_facts(all_of_them: EnergyTotals) -> str:
    one = all_of_them
    if not one.computers:
        return "no satellite with power computes"
    served = None if one.served_flop_s is None else f"served {rate_text(one.served_flop_s)}"
    efficiency = None if one.flop_per_joule is None else rate_text(one.flop_per_joule, "FLOP/J")
    int8 = rate_text(one.available_int8_ops_s, "OPS")
    return facts(
        f"compute available {rate_text(one.available_flop_s)} ({int8} with 8 bits)",
        f"allowed {rate_text(one.allowed_flop_s)}",
        f"used {rate_text(one.used_flop_s)}",
        served,
        efficiency,
    )


def rate_text(value: float, unit: str = "FLOPS") -> str:
    """A rate of computing with three digits and the prefix that suits it."""
    for size, prefix in PREFIXES:
        if value >= 0.9995 * size:
            return f"{three_digits(value / size)} {prefix}{unit}"
    return f"{three_digits(value)} {unit}"
