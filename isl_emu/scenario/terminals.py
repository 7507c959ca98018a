"""User terminals where people live: one table stands for many stations, drawn from the cities of the site catalogue."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from isl_emu.scenario.ground import EARTH_RADIUS_KM, GroundStation
from isl_emu.scenario.quantities import Quantity
from isl_emu.scenario.sites import site_catalogue
from isl_emu.units import LENGTH_KM

PLACED_BY = ("site", "latitude", "longitude", "height", "kind", "track", "population")


class Terminals(GroundStation):
    """`count` stations that share all other keys, each in a city that is drawn by its inhabitants, and near its centre.

    They are called `name-00`, `name-01`, and so on. `sites`: the cities, or all of the catalogue. `radius`: of the disc
    around the centre over which terminals are spread evenly.
    """

    count: int = Field(ge=1, le=10_000)
    sites: Literal["all"] | tuple[str, ...] = Field(examples=[["tokyo", "osaka"]], default="all")
    radius_km: Annotated[float, Quantity(LENGTH_KM, 0.0, 1_000.0)] = Field(alias="radius", default=30.0)

    @model_validator(mode="before")
    @classmethod
    def _placed(cls, table: Any) -> Any:
        """No place of its own; that of the stations comes from the cities."""
        if not isinstance(table, dict):
            return table
        if given := [key for key in PLACED_BY if key in table]:
            raise ValueError(
                f"has {' and '.join(given)}, but its stations are placed in cities; remove it, or name sites"
            )
        return {"latitude": "0 deg", "longitude": "0 deg", **table}

    @model_validator(mode="after")
    def _in_cities(self) -> Terminals:
        known = {name for name, site in site_catalogue().items() if site.population}
        if unknown := [name for name in self.sites if self.sites != "all" and name not in known]:
            raise ValueError(
                f"sites names {unknown[0]!r}, but the catalogue has no such city with inhabitants; `isl-emu sites` "
                "lists them"
            )
        if not self.sites:
            raise ValueError("has no sites, but terminals need a city at least; name one, or leave sites out")
        return self

    def stations(self, seed: int) -> Iterator[dict[str, Any]]:
        """The tables of the stations that this one stands for."""
        table = self.model_dump(by_alias=True, exclude_none=True)
        own = {"name", "count", "sites", "radius", *PLACED_BY}
        shared = {key: value for key, value in table.items() if key not in own}
        catalogue, draw = site_catalogue(), np.random.PCG64([seed, zlib.crc32(self.name.encode())])
        cities = [catalogue[name] for name in self.sites] if self.sites != "all" else list(catalogue.values())
        people = np.cumsum([city.population or 0 for city in cities])
        digits = max(2, len(str(self.count - 1)))
        for number, (which, how_far, where_to) in enumerate(np.random.Generator(draw).random((self.count, 3)).tolist()):
            city = cities[int(np.searchsorted(people, which * people[-1], side="right"))]
            away_deg = math.degrees(self.radius_km / EARTH_RADIUS_KM) * math.sqrt(how_far)
            bearing_rad = 2 * math.pi * where_to
            latitude_deg = max(-89.0, min(89.0, city.latitude_deg + away_deg * math.cos(bearing_rad)))
            east_deg = away_deg * math.sin(bearing_rad) / math.cos(math.radians(latitude_deg))
            longitude_deg = (city.longitude_deg + east_deg + 180.0) % 360.0 - 180.0
            place = {
                "latitude": f"{latitude_deg:.4f} deg",
                "longitude": f"{longitude_deg:.4f} deg",
                "height": f"{city.height_m:g} m",
            }
            yield {"name": f"{self.name}-{number:0{digits}d}", **place, **shared}
