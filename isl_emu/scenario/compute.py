"""The satellites that compute: groups of them that run a model server of one kind, and what each server gets."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from isl_emu.scenario.boards import board_named
from isl_emu.scenario.matching import Satellites
from isl_emu.scenario.quantities import Record, Size

LOADING = ("real", "throttled")  # servers that load a file of weights


def _known_board(name: str) -> str:
    board_named(name)
    return name


BoardName = Annotated[str, AfterValidator(_known_board)]


class Compute(Record):
    """A group of satellites that run a model server, and what each server gets.

    `satellites`: "all", or a list of node names and patterns. `server`: "real" is llama.cpp; "throttled" the same, held
    to the pace of a slower board; "modelled" streams real bytes at the pace of a roofline of a board; "external" is a
    program or a URL of the user's. `cpus`: share of one core. `model`: "bundled" or a GGUF file.
    """

    satellites: Satellites = "all"
    server: Literal["real", "throttled", "modelled", "external"] = "real"
    board: BoardName | None = None
    cpus: float = Field(gt=0.0, le=64.0, default=1.0)
    memory_byte: Size = Field(alias="memory", default=512 * 1024 * 1024)
    model: str = "bundled"
    context_tokens: int = Field(ge=64, default=1024)


def _groups(value: Any) -> Any:
    """A single table is a list of one."""
    return (value,) if isinstance(value, (dict, Compute)) else value


Groups = Annotated[tuple[Compute, ...], BeforeValidator(_groups)]
