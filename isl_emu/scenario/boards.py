"""The boards that satellites compute with: what each can do, what it draws, and how near it comes to its limits.

`isl_emu/data/boards.toml` has every figure with its source, and says whether it is known or assumed.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from types import MappingProxyType
from typing import Any

from isl_emu.files import tomllib

BITS = (4, 8, 16)  # of a weight, for which boards are known


@dataclass(frozen=True)
class Origin:
    """Where a figure comes from; `known` means published or measured, not guessed by us."""

    known: bool
    source: str


@dataclass(frozen=True)
class Board:
    """A computer on a satellite. Rates are dense: without counting zeros that a sparse multiplier could skip.

    Args:
        int8_ops_s: multiplications and additions of 8-bit numbers, each counted.
        fp16_flop_s: the same of 16-bit floating-point numbers.
        idle_w: drawn while it waits.
        busy_w: drawn while it computes.
        t0_ns: time of a decoding step that does not depend on the model's size.
        eta: share of the memory bandwidth that decoding reaches, by the bits of a weight (4, 8, 16).
        eta_c: share of `fp16_flop_s` that reading a prompt reaches.
        batch_ratio: what each further answer adds to a decoding step, over what a step takes for one.
        origins: of each figure, by its name.
    """

    name: str
    description: str
    int8_ops_s: float
    fp16_flop_s: float
    memory_byte: float
    memory_bandwidth_byte_s: float
    idle_w: float
    busy_w: float
    t0_ns: int
    eta: Mapping[int, float]
    eta_c: float
    batch_ratio: float
    origins: Mapping[str, Origin]


def board_named(name: str) -> Board:
    """The board of that name.

    Raises:
        ValueError: there is none; the message names one that is spelled nearly so.
    """
    if name not in BOARDS:
        close = difflib.get_close_matches(name, BOARDS, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]}?" if close else "choose one of them"
        raise ValueError(f"is {name!r}, but the boards are {', '.join(BOARDS)}; {hint}")
    return BOARDS[name]


def read_data(name: str) -> dict[str, Any]:
    """The tables of a TOML file that ships with isl-emu."""
    tables: dict[str, Any] = tomllib.loads(files("isl_emu.data").joinpath(name).read_text(encoding="utf-8"))
    return tables


def _board(name: str, table: Mapping[str, Any]) -> Board:
    figures = {key: entry for key, entry in table.items() if isinstance(entry, dict)}
    origins = {key: Origin("known" in entry, entry["source"]) for key, entry in figures.items()}
    values = {key: entry["known"] if "known" in entry else entry["assumed"] for key, entry in figures.items()}
    values["eta"] = MappingProxyType({int(bits): float(ratio) for bits, ratio in values["eta"].items()})
    return Board(name, table["description"], **values, origins=MappingProxyType(origins))


BOARDS: Mapping[str, Board] = MappingProxyType(
    {name: _board(name, table) for name, table in read_data("boards.toml").items()}
)
