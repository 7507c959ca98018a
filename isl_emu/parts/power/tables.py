"""The table of energy and heat."""

from __future__ import annotations

from isl_emu.tables.schema import NAME, NS, RATIO, REAL, column, schema

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
