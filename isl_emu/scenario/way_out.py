"""A way out of the emulated network: the gateway behind which the network of the machine lies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from isl_emu.scenario.matching import unknown
from isl_emu.scenario.quantities import NodeName, Record


class WayOut(Record):
    """Which node leads to the machine's own network: all other nodes send it what is for none of them.

    It takes real time, and a user who allows it at the command line.
    """

    gateway: NodeName


def way_out_contradictions(way_out: WayOut, on_the_ground: Sequence[str]) -> Iterator[str]:
    """A gateway that is none of the stations and places."""
    yield from unknown("way_out.gateway", [way_out.gateway], on_the_ground, "station or place")
