"""The network on the ground: places without antennas (PoPs, exchanges, servers), and lines between nodes there."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from isl_emu.scenario.ground import GroundStation
from isl_emu.scenario.matching import repeated, unknown
from isl_emu.scenario.quantities import (
    Delay,
    Duration,
    FlightHeight,
    Latitude,
    Longitude,
    NodeName,
    Range,
    Rate,
    Record,
)
from isl_emu.scenario.queueing import QueueTerms
from isl_emu.scenario.sites import site_place

FIBRE_REFRACTION = 1.468  # group index of G.652 fibre at 1550 nm; Corning SMF-28 Ultra, product information
DETOUR = 1.5  # length of a cable over the great circle; assumed, roads and coasts make 1.2 to 2


class Place(Record):
    """A node on the ground that no satellite is linked with: a PoP, an exchange, a server. It forwards."""

    name: NodeName
    site: str | None = None
    latitude_rad: Latitude = Field(alias="latitude")
    longitude_rad: Longitude = Field(alias="longitude")
    height_km: FlightHeight = Field(alias="height", default=0.0)

    @model_validator(mode="before")
    @classmethod
    def _sited(cls, table: Any) -> Any:
        """Coordinates from the site, where they are not given beside it."""
        if isinstance(table, dict) and isinstance(table.get("site"), str):
            place = site_place(table["site"])
            return {**{key: place[key] for key in ("latitude", "longitude", "height")}, **table}
        return table


class Terrestrial(QueueTerms):
    """A line between two nodes on the ground, always up.

    Its delay is given, or that of light in a fibre of some `length`, or of `detour` times the great circle between its
    ends; `refraction` is the fibre's.
    """

    between: tuple[NodeName, NodeName] = Field(examples=[["gw-berlin", "pop-frankfurt"]])
    delay_ns: Delay | None = Field(alias="delay", default=None)
    length_km: Range | None = Field(alias="length", default=None)
    detour: float = Field(ge=1.0, le=100.0, default=DETOUR)
    refraction: float = Field(ge=1.0, le=3.0, default=FIBRE_REFRACTION)
    rate_bit_s: Rate = Field(alias="rate", default=10_000_000_000)
    queue_ns: Duration = Field(alias="queue", default=50_000_000)

    @model_validator(mode="after")
    def _one_length(self) -> Terrestrial:
        given = self.model_fields_set
        if self.delay_ns is not None and (others := sorted(given & {"length_km", "detour", "refraction"})):
            names = " and ".join(name.removesuffix("_km") for name in others)
            raise ValueError(f"has a delay and also {names}, but the delay says it all; remove either")
        if self.length_km is not None and "detour" in given:
            raise ValueError("has a length and also a detour, but that lengthens a great circle; remove either")
        return self

    @model_serializer(mode="wrap")
    def _used_alone(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Keys that the line does not use are not written: they exclude each other and have defaults."""
        unused = {"detour"} if self.length_km is not None else set()
        if self.delay_ns is not None:
            unused = {"detour", "refraction"}
        return {key: value for key, value in handler(self).items() if key not in unused}


def ground_network_contradictions(
    lines: Sequence[Terrestrial],
    stations: Sequence[GroundStation],
    places: Collection[str],
    satellites: Collection[str],
) -> Iterator[str]:
    """Problems of terrestrial lines, and of stations that are named by schedulers."""
    moving = {station.name for station in stations if station.track}
    fixed = [*(station.name for station in stations if not station.track), *places]
    for number, line in enumerate(lines):
        where, ends = f"terrestrial[{number}].between", set(line.between)
        if len(ends) == 1:
            yield f"{where} is {line.between[0]} twice, but a line has two ends; name another"
        elif both := sorted(ends & {*satellites}):
            yield f"{where} names the satellite {both[0]}, but a line lies on the ground; name stations and places"
        elif both := sorted(ends & moving):
            yield f"{where} names {both[0]}, but that moves and a line does not; name a fixed station"
        else:
            yield from unknown(where, sorted(ends), fixed, "station or place")
    yield from repeated("terrestrial: line between", [" and ".join(sorted(line.between)) for line in lines])
    names = [station.name for station in stations]
    led_to = {name for station in stations if station.scheduler for name in station.scheduler.through}
    for station in stations:
        if station.handover == "follow" and station.name not in led_to:
            yield (
                f'station {station.name}: handover is "follow", but no terminal is scheduled through it, so it would '
                'have no satellite; name it in the through of a scheduler, or give it handover = "scheduled"'
            )
        through = station.scheduler.through if station.scheduler else ()
        yield from unknown(f"station {station.name}: scheduler.through", through, names, "ground station")
        if station.name in through:
            yield (
                f"station {station.name}: scheduler.through names the station itself, but its satellites are to be "
                "seen by another; name a gateway"
            )
