"""The table of energy and heat, what a run's energy came to, and its section: what Sun, batteries and radiators left.

Totals are for each group of satellites with power and for all of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from isl_emu.scenario.boards import Board
from isl_emu.scenario.matching import matching
from isl_emu.scenario.model import Scenario
from isl_emu.scenario.models import MODELS
from isl_emu.scenario.power import WHOLE
from isl_emu.scenario.quantities import ZERO_CELSIUS_K
from isl_emu.tables.schema import NAME, NS, RATIO, REAL, column, schema
from isl_emu.tables.text import facts, share, table, wrapped
from isl_emu.units import NS_PER_S, format_rate

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


Rows = Sequence[Mapping[str, Any]]
BUNDLED_MODEL = "smollm2-135m"  # what "bundled" is


@dataclass(frozen=True)
class EnergyTotals:
    """Sums and means over some satellites and the time for which the table has rows of them.

    FLOPS are those of 16-bit numbers, dense. Available is what the boards could do, allowed what energy and heat left
    of it, used what they did if all their work is counted at their full rate, and served what a language model needs
    for the tokens that it read and answered, 2 for each parameter; null where the size of a model is not known.
    """

    satellites: int
    computers: int
    eclipse_ratio: float
    limited_ratio: float | None  # of the computers' time, in which they were slowed or off
    off_ratio: float | None
    charge_min_ratio: float
    temperature_max_k: float
    duration_s: float
    solar_j: float
    board_j: float
    unmet_j: float
    available_flop_s: float
    available_int8_ops_s: float
    allowed_flop_s: float
    used_flop_s: float
    served_flop_s: float | None
    asked: int
    in_time: int  # answered within the deadline
    answer_tokens: int

    @property
    def joule_per_token(self) -> float | None:
        """What the computers drew for each token of an answer, their idling included."""
        return self.board_j / self.answer_tokens if self.answer_tokens else None

    @property
    def flop_per_joule(self) -> float | None:
        """The work that they used, over what they drew."""
        return self.used_flop_s * self.duration_s / self.board_j if self.board_j else None


def energy_totals(table: pa.Table, requests: Rows, scenario: Scenario) -> dict[str, EnergyTotals]:
    """The totals by shell, and within it by `[[power]]` group where it has several; and of the whole constellation.

    Args:
        table: energy.parquet.
        requests: requests.parquet.
    """
    columns, boards = _Columns.of(table), scenario.boards
    parts = scenario.power_parts
    return {label: _totals(members, columns, requests, boards, scenario) for label, members in parts.items()}


def write_energy(path: Path, totals: Mapping[str, EnergyTotals]) -> None:
    """Write the totals as JSON."""
    figures = {
        label: {**asdict(one), "joule_per_token": one.joule_per_token, "flop_per_joule": one.flop_per_joule}
        for label, one in totals.items()
    }
    path.write_text(json.dumps(figures, indent=2) + "\n")


@dataclass(frozen=True)
class _Columns:
    """The table as arrays with a value for each row; satellites by their place in `names`."""

    names: np.ndarray
    number: np.ndarray
    values: Mapping[str, np.ndarray]

    @classmethod
    def of(cls, table: pa.Table) -> _Columns:
        names = table.column("satellite").combine_chunks().cast(pa.string()).dictionary_encode()
        plain = [name for name in table.schema.names if name not in ("satellite", "mode")]
        values = {name: table.column(name).to_numpy() for name in plain}
        return cls(np.array(names.dictionary.to_pylist()), names.indices.to_numpy(), values)

    def of_members(self, members: set[str]) -> _Columns:
        """The rows of some satellites."""
        inside = np.isin(self.names, list(members))[self.number]
        return _Columns(self.names, self.number[inside], {key: array[inside] for key, array in self.values.items()})


def _totals(
    members: set[str], columns: _Columns, requests: Rows, boards: Mapping[str, Board], scenario: Scenario
) -> EnergyTotals:
    part = columns.of_members(members)
    rows, span_s = part.values, part.values["interval_ns"] / NS_PER_S
    computers = {name: board for name, board in boards.items() if name in members}
    flop_s = np.array([computers[name].fp16_flop_s if name in computers else 0.0 for name in part.names])[part.number]
    computing_s = np.where(flop_s > 0.0, span_s, 0.0)
    duration_s = float(span_s.sum()) / len(np.unique(part.number))
    asked = [request for request in requests if request["satellite"] in members]
    return EnergyTotals(
        satellites=len(members),
        computers=len(computers),
        eclipse_ratio=_mean(1.0 - rows["sunlit_ratio"], span_s),
        limited_ratio=_mean(rows["limited_ratio"], computing_s) if computers else None,
        off_ratio=_mean(rows["off_ratio"], computing_s) if computers else None,
        charge_min_ratio=float(rows["charge_ratio"].min()),
        temperature_max_k=float(rows["temperature_k"].max()),
        duration_s=duration_s,
        solar_j=float(rows["solar_w"] @ span_s),
        board_j=float(rows["board_w"] @ span_s),
        unmet_j=float(rows["unmet_w"] @ span_s),
        available_flop_s=sum(board.fp16_flop_s for board in computers.values()),
        available_int8_ops_s=sum(board.int8_ops_s for board in computers.values()),
        allowed_flop_s=float((rows["pace_ratio"] * flop_s) @ span_s) / duration_s,
        used_flop_s=float((rows["busy_ratio"] * flop_s) @ span_s) / duration_s,
        served_flop_s=_served_flop(asked, scenario, duration_s),
        asked=len(asked),
        in_time=sum(bool(request["deadline_met"]) for request in asked),
        answer_tokens=sum(request["answer_tokens"] or 0 for request in asked),
    )


def _mean(values: np.ndarray, weights: np.ndarray) -> float:
    return float(values @ weights / weights.sum())


def _served_flop(requests: Rows, scenario: Scenario, duration_s: float) -> float | None:
    """Floating-point operations a second for all tokens read and answered; None if a model's size is not known."""
    # The size of the model of each satellite that serves one that is known by its name
    named = [(group, BUNDLED_MODEL if group.model == "bundled" else group.model) for group in scenario.compute]
    parameters = {
        name: MODELS[model].parameters
        for group, model in named
        if model in MODELS
        for name in matching(group.satellites, scenario.satellite_names)
    }
    total = 0.0
    for request in requests:
        tokens = (request["prompt_tokens"] or 0) + (request["answer_tokens"] or 0)
        paced_as = (request.get("paced_as") or "").partition("@")[0]
        size = MODELS[paced_as].parameters if paced_as in MODELS else parameters.get(request["satellite"])
        if tokens and size is None:
            return None
        total += 2.0 * (size or 0) * tokens
    return total / duration_s


ENERGY_HEADER = (
    "satellites", "", "in shadow", "charge", "hottest", "slowed", "off", "computers", "in time", "a token",
)  # fmt: skip


def energy_section(totals: Mapping[str, EnergyTotals]) -> Iterator[str]:
    yield "ENERGY AND HEAT  (means over satellites and time; charge and temperature: the worst of any)"
    yield from table(ENERGY_HEADER, energy_rows(totals), left=1)
    yield from wrapped("  ", computing_facts(totals[WHOLE]))


def energy_rows(totals: Mapping[str, EnergyTotals]) -> list[tuple[str, ...]]:
    """What `ENERGY_HEADER` names, of each part of the constellation."""
    return [_row(label, one) for label, one in totals.items()]


def computing_facts(one: EnergyTotals) -> str:
    """What the computers could do, were allowed to, and did."""
    if not one.computers:
        return "no satellite with power computes"
    names = "available", "allowed", "used", "served"
    rates = one.available_flop_s, one.allowed_flop_s, one.used_flop_s, one.served_flop_s
    known = [f"{name} {format_rate(rate, 'FLOPS')}" for name, rate in zip(names, rates, strict=True) if rate]
    efficiency = None if one.flop_per_joule is None else format_rate(one.flop_per_joule, "FLOP/J")
    return f"compute: {facts(*known, efficiency)}"


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
