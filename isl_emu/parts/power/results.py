"""The table of energy and heat, and its section: what Sun, batteries and radiators left of the computers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from isl_emu.parts.power.totals import EnergyTotals
from isl_emu.scenario.power import WHOLE
from isl_emu.scenario.quantities import ZERO_CELSIUS_K
from isl_emu.tables.schema import NAME, NS, RATIO, REAL, column, schema
from isl_emu.tables.text import facts, share, table, wrapped
from isl_emu.units import format_rate

ENERGY = schema(
    column("t_ns", NS, "ns", "end of the interval that the row describes"),
    column("satellite", NAME, "", "node name"),
    column("interval_ns", NS, "ns", "length of the interval; the powers and ratios below are means over it"),
    column("sunlit_ratio", RATIO, "ratio", "share of the interval outside the Earth's shadow"),
    column("solar_w", REAL, "W", "what the panel could give"),
    column("board_w", REAL, "W", "what the computer drew"),
    column("battery_w", REAL, "W", "into the battery, at its terminals; negative when it gave"),
    column("unmet_w", REAL, "W", "what bus and computer wanted, but panel and battery could not give"),
    column("busy_ratio", RATIO, "ratio", "share of its full work that the computer did"),
    column("pace_ratio", RATIO, "ratio", "share of its full pace that the computer was allowed"),
    column("limited_ratio", RATIO, "ratio", "share of the interval in which its pace was below 1 or it was off"),
    column("off_ratio", RATIO, "ratio", "share of the interval in which the computer was off"),
    column("charge_ratio", RATIO, "ratio", "state of charge of the battery at the end of the interval"),
    column("temperature_k", REAL, "K", "temperature of the satellite at the end of the interval"),
    column("mode", NAME, "", "from then on: nominal, power-limited, heat-limited or off"),
)


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
