"""The ground segment of a scenario."""

from __future__ import annotations

from pydantic import Field

from isl_emu.scenario.quantities import Duration, Elevation, Latitude, Longitude, NodeName, Rate, Record, SiteHeight


class GroundStation(Record):
    """A station on the WGS84 ellipsoid; it tracks the highest satellites, one with each antenna."""

    name: NodeName
    latitude_rad: Latitude = Field(alias="latitude")
    longitude_rad: Longitude = Field(alias="longitude")
    height_km: SiteHeight = Field(alias="height", default=0.0)
    min_elevation_rad: Elevation = Field(alias="min_elevation")
    antennas: int = Field(ge=1, default=1)
    uplink_bit_s: Rate = Field(alias="uplink")
    downlink_bit_s: Rate = Field(alias="downlink")
    queue_ns: Duration = Field(alias="queue", default=50_000_000)
