"""The way of the weights into orbit: sent from the ground, spread over the lasers, and served only then."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from isl_emu.scenario.matching import Satellites
from isl_emu.scenario.quantities import Delay, Duration, NodeName, Record, Size


class Uplink(Record):
    """The weights are sent while the sky moves, and a satellite serves once it has them.

    `stations`: where the file is. `satellites`: which get it, of those with real servers. `first`: which of them has
    it from the ground, or "earliest" for the one that would have it first by the plan. `spread`: how the others get it.
    `stall`: how long a connection is kept on which nothing comes. `piece`: what is verified as a whole.
    """

    stations: Literal["all"] | tuple[NodeName, ...] = "all"
    satellites: Satellites = "all"
    first: str = "earliest"
    spread: Literal["ring", "tree", "swarm"] = "swarm"
    begin_ns: Delay = Field(alias="begin", default=0)
    stall_ns: Duration = Field(alias="stall", default=5_000_000_000)
    piece_byte: Size | None = Field(alias="piece", default=None)
