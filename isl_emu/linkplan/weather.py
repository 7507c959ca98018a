"""What the weather does to the links of a ground terminal.

Weather belongs to a place: terminals whose coordinates round to the same tenth of a degree see the same clouds and the
same rain, and others see theirs independently. A moving terminal takes the weather of its first waypoint along. All of
it is drawn by (seed, place, count): neither the time step nor the length of a run, nor other terminals, change it.
"""

from __future__ import annotations

import math

import numpy as np

from isl_emu.arrays import Bools
from isl_emu.geometry.places import track_points
from isl_emu.linkplan.draws import exponential, uniform
from isl_emu.linkplan.rain import coded_rate_ratio, exceedance_ratio, rain_attenuation_db, site_climate
from isl_emu.linkplan.sightings import View
from isl_emu.scenario.ground import Clouds, Scintillation
from isl_emu.scenario.model import GroundStation

SPELLS_AT_ONCE = 64
TURBULENCE_EXPONENT = 11 / 6  # Rytov variance of a slant path against the zenith's; Andrews and Phillips 2005, ch. 12


def weather_place(station: GroundStation) -> tuple[int, int]:
    """The square of a tenth of a degree that a terminal lies in, as two whole numbers."""
    latitude, longitude = math.degrees(station.latitude_rad), math.degrees(station.longitude_rad)
    return round(latitude * 10) + 900, round(longitude * 10) % 3600


def clear_sky(seed: int, clouds: Clouds | None, place: tuple[int, int], t_ns: np.ndarray) -> np.ndarray:
    """At which of K times since the start there is no cloud over a place; bool, shape (K,).

    Spells are exponentially distributed; at the start it is clear with the long-run probability, so the process is the
    same at all times.
    """
    if clouds is None:
        return np.ones(len(t_ns), dtype=bool)
    clear_first = bool(uniform(seed, "clouds at start", *place) < clouds.availability)
    clear_ns = clouds.mean_duration_ns * clouds.availability / (1 - clouds.availability)
    pair_ns = [clear_ns, clouds.mean_duration_ns] if clear_first else [clouds.mean_duration_ns, clear_ns]
    switches_ns, end_ns = np.zeros(1), int(np.max(t_ns, initial=0))
    while switches_ns[-1] <= end_ns:
        spells = len(switches_ns) - 1 + np.arange(SPELLS_AT_ONCE)
        lengths_ns = exponential(np.tile(pair_ns, SPELLS_AT_ONCE // 2), uniform(seed, "clouds", *place, spells))
        switches_ns = np.append(switches_ns, switches_ns[-1] + np.cumsum(lengths_ns))
    switches_ns = switches_ns[1:]
    is_clear: Bools = (np.searchsorted(switches_ns, t_ns, side="right") % 2 == 0) == clear_first
    return is_clear


def scintillation_loss_ratio(
    seed: int, scintillation: Scintillation | None, station: str, view: View, step_ns: int
) -> np.ndarray:
    """The share of packets lost to turbulence on each link of a view, float64, shape (V,).

    Drawn anew in each interval from an exponential distribution whose mean grows with the air on the way, as the
    variance of the light does: with sin(elevation) to the power of -11/6. Cut off at 1.
    """
    if scintillation is None:
        return np.zeros(len(view.k))
    interval = view.k * step_ns // scintillation.interval_ns
    mean = scintillation.mean_loss_ratio * np.sin(np.maximum(view.elevation_rad, 1e-3)) ** -TURBULENCE_EXPONENT
    drawn = exponential(mean, uniform(seed, f"scintillation {station}", view.satellite, interval))
    return np.minimum(drawn, 1.0)


def rain_rate_ratios(seed: int, station: GroundStation, view: View, t_ns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What rain leaves of the downlink's and of the uplink's rate on each link of a view, 0..1, shape (V,) each.

    Args:
        t_ns: the instants of the run since its start, shape (K,).
    """
    rain = station.weather.rain if station.weather else None
    if rain is None:
        return np.ones(len(view.k)), np.ones(len(view.k))
    climate = site_climate(station.name, rain, station.latitude_rad, station.longitude_rad)
    ratio = exceedance_ratio(seed, weather_place(station), t_ns, rain.exceeded_at_start)[view.k]
    height_km = track_points(station, t_ns)[1][view.k] if station.track else station.height_km

    def left(frequency_ghz: float) -> np.ndarray:
        attenuation_db = rain_attenuation_db(
            ratio, np.maximum(view.elevation_rad, 0.0), frequency_ghz, climate, station.latitude_rad, height_km
        )
        return coded_rate_ratio(attenuation_db, rain.margin_db)

    return left(rain.downlink_frequency_ghz), left(rain.uplink_frequency_ghz)
