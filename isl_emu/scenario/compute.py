"""The satellites that compute: which run a model server, and what it gets."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from isl_emu.scenario.quantities import NodeName, Record, Size


class Compute(Record):
    """The satellites that run a model server, and what each server gets.

    `satellites`: "all" or a list of node names. `cpus`: share of one core. `model`: "bundled" or a GGUF file.
    """

    satellites: Literal["all"] | tuple[NodeName, ...] = "all"
    cpus: float = Field(gt=0.0, le=64.0, default=1.0)
    memory_byte: Size = Field(alias="memory", default=512 * 1024 * 1024)
    model: str = "bundled"
    context_tokens: int = Field(ge=64, default=1024)
