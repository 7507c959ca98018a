"""The users of a run: what they ask of the satellites, when and from where."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from isl_emu.scenario.quantities import Duration, NodeName, Record


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
