"""Models whose layers are shared out over several satellites: which, in what order, and by which engine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from pydantic import Field

from isl_emu.scenario.matching import NodePattern, matching, unmatched
from isl_emu.scenario.quantities import Record, Size

LEAST_SATELLITES = 2


class Split(Record):
    """One model over several satellites, each with some of its layers.

    `satellites`: names and patterns; layers are given out in their order, and the first, the head, is the one that
    answers questions. `engine`: "pipeline" passes activations from satellite to satellite and back to the head by
    torch.distributed; "llama-rpc" is llama.cpp's server at the head, with the others as its remote processors.
    `layers`: how many each satellite has; even shares if left out. `cpus`, `memory`: for each satellite.
    `conversations`: how many the head keeps under way at once.
    """

    satellites: tuple[NodePattern, ...] = Field(min_length=1)
    engine: Literal["pipeline", "llama-rpc"] = "pipeline"
    model: str = "bundled"
    layers: tuple[int, ...] = ()
    cpus: float = Field(gt=0.0, le=64.0, default=1.0)
    memory_byte: Size = Field(alias="memory", default=1024 * 1024 * 1024)
    context_tokens: int = Field(ge=64, default=1024)
    conversations: int = Field(ge=1, le=64, default=1)

    def members(self, names: Sequence[str]) -> tuple[str, ...]:
        """Its satellites in the order in which layers are given out; those of a pattern in the order of `names`."""
        return tuple(dict.fromkeys(name for pattern in self.satellites for name in matching((pattern,), names)))

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
