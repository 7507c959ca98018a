"""Models whose layers are shared out over several satellites: which, in what order, and by which engine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from pydantic import Field, model_validator

from isl_emu.scenario.boards import board_named
from isl_emu.scenario.compute import BITS, BoardName
from isl_emu.scenario.matching import NodePatterns, listed, unmatched
from isl_emu.scenario.models import Roofline, model_named
from isl_emu.scenario.quantities import Record, Size

LEAST_SATELLITES = 2


class Split(Record):
    """One model over several satellites, each with some of its layers.

    `satellites`: names and patterns; layers are given out in their order, and the first, the head, is the one that
    answers questions. `engine`: "pipeline" passes activations from satellite to satellite and back to the head by
    torch.distributed; "llama-rpc" is llama.cpp's server at the head, with the others as its remote processors.
    `layers`: how many each satellite has; even shares if left out. `cpus`, `memory`: for each satellite.
    `conversations`: how many the head keeps under way at once. `board`: whose time the layers take in exact time, with
    the model in the file, or with `pace_model` of `bits` a weight.
    """

    satellites: NodePatterns = Field(min_length=1)
    engine: Literal["pipeline", "llama-rpc"] = "pipeline"
    model: str = "bundled"
    layers: tuple[int, ...] = Field(examples=[[16, 14]], default=())
    cpus: float = Field(gt=0.0, le=64.0, default=1.0)
    memory_byte: Size = Field(alias="memory", default=1024 * 1024 * 1024)
    context_tokens: int = Field(ge=64, le=100_000_000, default=1024)
    conversations: int = Field(ge=1, le=64, default=1)
    board: BoardName | None = None
    pace_model: str | None = None
    bits: Literal[4, 8, 16] | None = None

    @model_validator(mode="after")
    def _whose_pace(self) -> Split:
        if self.pace_model is None:
            if self.bits is not None:
                raise ValueError(
                    "bits is given, but they are those of pace_model, and the model's file has its own; give pace_model"
                )
            return self
        if self.board is None:
            raise ValueError("pace_model is given, but no board says where it has its pace; give board")
        try:
            model_named(self.pace_model)
        except ValueError as error:
            raise ValueError(f"pace_model {error}") from None
        return self

    @property
    def roofline(self) -> Roofline:
        """The pace of its `pace_model` on its board."""
        return Roofline(board_named(self.board or ""), model_named(self.pace_model or ""), self.bits or BITS)

    def members(self, names: Sequence[str]) -> tuple[str, ...]:
        """Its satellites in the order in which layers are given out; those of a pattern in the order of `names`."""
        return listed(self.satellites, names)

    def head(self, names: Sequence[str]) -> str:
        """The satellite that answers questions."""
        return self.members(names)[0]


def split_contradictions(splits: Sequence[Split], names: Sequence[str], computing: Sequence[str]) -> Iterator[str]:
    """Problems of the split models that show beside the satellites, and those of them that have a server already."""
    heads = dict.fromkeys(computing, "compute")
    for index, split in enumerate(splits):
        where = f"split[{index}]"
        problems = [*unmatched(f"{where}.satellites", split.satellites, names), *_share_problems(where, split, names)]
        yield from problems
        if problems:
            continue
        if (head := split.head(names)) in heads:
            yield f"{where}.satellites begins with {head!r}, but it answers for {heads[head]} already; name another"
        heads[head] = where


def _share_problems(where: str, split: Split, names: Sequence[str]) -> Iterator[str]:
    count = len(split.members(names))
    if count < LEAST_SATELLITES:
        yield f"{where}.satellites means {count} satellite, but a model is split over at least two; name another"
    if split.layers and len(split.layers) != count:
        yield (
            f"{where}.layers has {len(split.layers)} numbers, but there are {count} satellites; "
            "give one for each, or none for even shares"
        )
    for index, number in enumerate(split.layers):
        if number < 1:
            yield f"{where}.layers[{index}] is {number}, but each satellite needs a layer; leave it out instead"
