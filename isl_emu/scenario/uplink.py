"""The way of the weights into orbit: sent from the ground, spread over the lasers, and served only then."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from pydantic import Field

from isl_emu.scenario.compute import Compute
from isl_emu.scenario.constellation import Constellation
from isl_emu.scenario.matching import Satellites, Stations, matching, unknown, unmatched
from isl_emu.scenario.quantities import Delay, Duration, Record, Size


class Uplink(Record):
    """The weights are sent while the sky moves, and a satellite serves once it has them.

    `stations`: where the file is. `satellites`: which get it, of those with real servers. `first`: which of them has
    it from the ground, or "earliest" for the one that would have it first by the plan. `spread`: how the others get it.
    `stall`: how long a connection is kept on which nothing comes. `piece`: what is verified as a whole.
    """

    stations: Stations = "all"
    satellites: Satellites = "all"
    first: str = "earliest"
    spread: Literal["ring", "tree", "swarm"] = "swarm"
    begin_ns: Delay = Field(alias="begin", default=0)
    stall_ns: Duration = Field(alias="stall", default=5_000_000_000)
    piece_byte: Size | None = Field(alias="piece", default=None)

    def receivers(self, names: Sequence[str], groups: Sequence[Compute]) -> tuple[str, ...]:
        """Those that get the file, of the satellites with these names and these groups of servers, in their order."""
        if self.satellites != "all":
            return matching(self.satellites, names)
        real = {name for group in groups if group.traits.may_wait for name in matching(group.satellites, names)}
        return tuple(name for name in names if name in real)


def uplink_contradictions(uplink: Uplink, constellation: Constellation, groups: Sequence[Compute]) -> Iterator[str]:
    """Problems of the uplink that show beside the satellites and stations, and the groups of servers."""
    names = constellation.satellite_names
    yield from unmatched("uplink.satellites", uplink.satellites, names)
    if not constellation.station:
        yield "uplink is given, but there is no ground station to send from; add a [[station]]"
    if uplink.stations != "all":
        yield from unknown("uplink.stations", uplink.stations, constellation.station_names, "ground station")
    receivers = uplink.receivers(names, groups)
    if not receivers and uplink.satellites == "all":
        yield 'uplink is given, but no satellite has a real server; add a [compute] group with server = "real"'
    served = {name: next((one for one in groups if matching(one.satellites, (name,))), None) for name in receivers}
    for name, group in served.items():
        if group is None:
            yield f"uplink.satellites has {name!r}, but it runs no server; leave it out, or add it to a [compute] group"
        elif not group.traits.may_wait:
            yield (
                f"uplink.satellites has {name!r}, whose server is {group.server}, but only a real one gets its model "
                "in the run; leave it out"
            )
    models = sorted({group.model for group in served.values() if group})
    if len(models) > 1:
        yield f"uplink.satellites serve {' and '.join(map(repr, models))}, but one file is sent up; name those of one"
    if uplink.first != "earliest" and uplink.first not in receivers:
        yield f'uplink.first is {uplink.first!r}, but it is "earliest" or one of uplink.satellites; choose one of them'
