"""The site catalogue that ships with isl-emu: cities and published ground stations, by name.

`isl_emu/data/sites.csv` has geodetic coordinates and a source for each. Heights are above mean sea level; the
ellipsoid, from which the rest of isl-emu counts, differs from it by up to 110 m, which moves a delay by at most 0.4 us.
Cities lie at their centre: GeoNames (geonames.org, CC BY 4.0), height from the map of Recommendation ITU-R P.1511 to
10 m, and the inhabitants that GeoNames counts. Stations were entered by hand and not compared with the named source
line by line; they are good to a kilometre or so (3 us): fit for emulation, not for pointing.
"""

from __future__ import annotations

import csv
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from types import MappingProxyType


@dataclass(frozen=True)
class Site:
    """One place of the catalogue."""

    name: str
    latitude_deg: float
    longitude_deg: float
    height_m: float
    population: int | None  # of a city; a ground station has none
    source: str


@lru_cache(maxsize=1)
def site_catalogue() -> Mapping[str, Site]:
    """All sites by name, in the order of the alphabet."""
    text = files("isl_emu.data").joinpath("sites.csv").read_text(encoding="utf-8")
    sites = [
        Site(
            row["name"],
            float(row["latitude_deg"]),
            float(row["longitude_deg"]),
            float(row["height_m"]),
            int(row["population"]) if row["population"] else None,
            row["source"],
        )
        for row in csv.DictReader(text.splitlines())
    ]
    return MappingProxyType({site.name: site for site in sites})


def site_place(name: str) -> dict[str, str | int]:
    """The coordinates of a site, and a city's population, as the keys of a scenario.

    Raises:
        ValueError: there is no such site; the message names those that are spelled nearly so.
    """
    catalogue = site_catalogue()
    if name not in catalogue:
        close = difflib.get_close_matches(name.lower().replace(" ", "-"), catalogue, n=3, cutoff=0.6)
        hint = f"did you mean {' or '.join(close)}?" if close else "`isl-emu sites` lists them"
        raise ValueError(f"site is {name!r}, but the catalogue has no such site; {hint}")
    site = catalogue[name]
    return {
        "latitude": f"{site.latitude_deg:.4f} deg",
        "longitude": f"{site.longitude_deg:.4f} deg",
        "height": f"{site.height_m:g} m",
        **({"population": site.population} if site.population is not None else {}),
    }
