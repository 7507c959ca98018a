"""What runs in a scenario: model servers on satellites, and the questions that users ask them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from isl_emu.scenario.quantities import Duration, NodeName, Record, Size


class Compute(Record):
    """The satellites that run a model server, and what each server gets.

    `satellites`: "all" or a list of node names. `cpus`: share of one core. `model`: "bundled" or a GGUF file.
    """

    satellites: Literal["all"] | tuple[NodeName, ...] = "all"
    cpus: float = Field(gt=0.0, le=64.0, default=1.0)
    memory_byte: Size = Field(alias="memory", default=512 * 1024 * 1024)
    model: str = "bundled"
    context_tokens: int = Field(ge=64, default=1024)


class Questions(Record):
    """Users at the ground stations ask the satellites' model: Poisson arrivals, answers streamed back.

    `target`: which computing satellite serves a question: "nearest" by delay when it is sent, "uniform" (seeded), or a
    node name.
    """

    mean_interval_ns: Duration = Field(alias="mean_interval")
    stop_after_ns: Duration | None = Field(alias="stop_after", default=None)
    stations: Literal["all"] | tuple[NodeName, ...] = "all"
    target: str = "uniform"
    max_answer_tokens: int = Field(ge=1, default=48)
    temperature: float = Field(ge=0.0, le=2.0, default=0.0)
    deadline_ns: Duration = Field(alias="deadline", default=120_000_000_000)
    system: str = ""
    prompts: tuple[str, ...] = Field(min_length=1)
