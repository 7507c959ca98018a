"""Rain on radio links to satellites: its attenuation, its course over time, and the rate that is left.

The attenuation exceeded in a given share of an average year is that of Recommendation ITU-R P.618-13, section 2.2.1.1,
with the specific attenuation of P.838-3. Over time, the share itself moves: its normal quantile is a first-order
Gaussian process as in P.1853-2, so that at each elevation the attenuation has the distribution of P.618 in the long
run. Gases, clouds, wet antennas and scintillation are neglected: together about 1 to 3 dB at 20 to 30 GHz and 10 deg,
which belong in the margin.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri

from isl_emu.arrays import Floats, Ints
from isl_emu.errors import ScenarioError
from isl_emu.linkplan.draws import uniform
from isl_emu.scenario.ground import Rain
from isl_emu.units import NS_PER_S

EFFECTIVE_EARTH_RADIUS_KM = 8_500.0  # with refraction, P.618-13, step 2
LEAST_RATIO = 1e-5  # of time, from which P.618-13 holds, up to 0.05; below, what it says there; above, extrapolation
CIRCULAR_TILT_RAD = math.pi / 4  # P.838-3: tilt angle that stands for circular polarisation
FADE_RATE_PER_S = 2e-4  # beta, P.1853-2, annex 1, section 2.2
COURSE_STEP_NS = 10 * NS_PER_S  # in which the process moves by a sixteenth of its spread; interpolated in between

# P.838-3, tables 1 to 4: rows of (a, b, c) and the final (m, c), for log10 k and for alpha
K_H = ((-5.33980, -0.10008, 1.13098), (-0.35351, 1.26970, 0.45400), (-0.23789, 0.86036, 0.15354),
       (-0.94158, 0.64552, 0.16817)), (-0.18961, 0.71147)  # fmt: skip
K_V = ((-3.80595, 0.56934, 0.81061), (-3.44965, -0.22911, 0.51059), (-0.39902, 0.73042, 0.11899),
       (0.50167, 1.07319, 0.27195)), (-0.16398, 0.63297)  # fmt: skip
ALPHA_H = ((-0.14318, 1.82442, -0.55187), (0.29591, 0.77564, 0.19822), (0.32177, 0.63773, 0.13164),
           (-5.37610, -0.96230, 1.47828), (16.1721, -3.29980, 3.43990)), (0.67849, -1.95537)  # fmt: skip
ALPHA_V = ((-0.07771, 2.33840, -0.76284), (0.56727, 0.95545, 0.54039), (-0.20238, 1.14520, 0.26809),
           (-48.2991, 0.791669, 0.116226), (48.5833, 0.791459, 0.116479)), (-0.053739, 0.83433)  # fmt: skip

# DVB-S2, EN 302 307-1 V1.4.1, table 13: ideal Es/N0 in dB and bits per symbol, QPSK 1/4 to 16APSK 8/9, what is best
CODINGS = np.array([
    (-2.35, 0.490243), (-1.24, 0.656448), (-0.30, 0.789412), (1.00, 0.988858), (2.23, 1.188304), (3.10, 1.322253),
    (4.03, 1.487473), (4.68, 1.587196), (5.18, 1.654663), (5.50, 1.779991), (6.62, 1.980636), (7.91, 2.228124),
    (8.97, 2.637201), (10.21, 2.966728), (11.03, 3.165623), (11.61, 3.300184), (12.89, 3.523143),
])  # fmt: skip


@dataclass(frozen=True)
class Climate:
    """The rain at a place in an average year."""

    rain_rate_mm_h: float  # exceeded 0.01 % of the time
    rain_height_km: float  # above mean sea level
    rain_ratio: float  # the share of time in which it rains


def site_climate(station: str, rain: Rain, latitude_rad: float, longitude_rad: float) -> Climate:
    """The climate as the scenario gives it, and what it does not from the maps of P.837-7 and P.839-4.

    Raises:
        ScenarioError: the maps are needed, but the package `itur` is not installed.
    """
    rate_mm_h, height_km, ratio = rain.rain_rate_mm_h, rain.rain_height_km, rain.rain_probability
    if rate_mm_h is not None and height_km is not None and ratio is not None:
        return Climate(rate_mm_h, height_km, ratio)
    try:
        from itur.models import itu837, itu839  # noqa: PLC0415  (170 MB and 4 s; only where the maps are needed)
    except ImportError:
        raise ScenarioError(
            f"station {station}: weather.rain is given without all of rain_rate, rain_height and rain_probability, but "
            f"the ITU's maps come with the Python package itur, which is not installed; run `pip install itur`, or "
            f"give all three"
        ) from None
    place = math.degrees(latitude_rad), math.degrees(longitude_rad)
    return Climate(
        float(itu837.rainfall_rate(*place, 0.01).value) if rate_mm_h is None else rate_mm_h,
        float(itu839.rain_height(*place).value) if height_km is None else height_km,
        float(itu837.rainfall_probability(*place).value) / 100 if ratio is None else ratio,
    )


def rain_attenuation_db(
    ratio: Floats,
    elevation_rad: Floats,
    frequency_ghz: float,
    climate: Climate,
    latitude_rad: float,
    height_km: Floats | float,
    tilt_rad: float = CIRCULAR_TILT_RAD,
) -> Floats:
    """The attenuation by rain that is exceeded in a share of an average year, in dB, of the arguments' common shape.

    Args:
        ratio: that share, 0..1; from the share of rain on there is none.
        elevation_rad: of the satellite.
        height_km: of the station above mean sea level; nothing above the rain is attenuated.
        tilt_rad: of the polarisation against the horizontal.

    Source: Recommendation ITU-R P.618-13, section 2.2.1.1.
    """
    ratio, elevation_rad, depth_km = np.broadcast_arrays(ratio, elevation_rad, climate.rain_height_km - height_km)
    wet = (ratio < climate.rain_ratio) & (depth_km > 0) & (climate.rain_rate_mm_h > 0)
    result = np.zeros(ratio.shape)
    of_a_hundredth_db = _exceeded_a_hundredth_percent_db(
        elevation_rad[wet], depth_km[wet], frequency_ghz, climate.rain_rate_mm_h, abs(latitude_rad), tilt_rad
    )
    percent = 100 * np.clip(ratio[wet], LEAST_RATIO, None)
    result[wet] = _at_percent_db(of_a_hundredth_db, percent, elevation_rad[wet], abs(latitude_rad))
    return result


def specific_attenuation_db_km(
    rain_rate_mm_h: float, frequency_ghz: float, elevation_rad: Floats, tilt_rad: float
) -> Floats:
    """The attenuation of a km of rain, of the shape of `elevation_rad`.

    Source: Recommendation ITU-R P.838-3.
    """
    log_f = math.log10(frequency_ghz)
    k_h, k_v = (10 ** _fitted(log_f, *table) for table in (K_H, K_V))
    alpha_h, alpha_v = (_fitted(log_f, *table) for table in (ALPHA_H, ALPHA_V))
    mixing = np.cos(elevation_rad) ** 2 * math.cos(2 * tilt_rad)
    k = (k_h + k_v + (k_h - k_v) * mixing) / 2
    alpha = (k_h * alpha_h + k_v * alpha_v + (k_h * alpha_h - k_v * alpha_v) * mixing) / (2 * k)
    return k * rain_rate_mm_h**alpha


def exceedance_ratio(seed: int, place: tuple[int, int], t_ns: Ints, at_start: float | None = None) -> Floats:
    """In which share of the time it rains harder than at each of K times: small in a downpour; shape (K,).

    The same for all links and frequencies of a place, and whatever the time step of the plan. `at_start` sets the
    share at the start instead of drawing it; then the process goes its way.
    """
    count = int(np.max(t_ns, initial=0)) // COURSE_STEP_NS + 2
    shocks = ndtri(uniform(seed, "rain", *place, np.arange(count)))
    if at_start is not None:
        shocks[0] = -ndtri(at_start)
    kept = math.exp(-FADE_RATE_PER_S * COURSE_STEP_NS / NS_PER_S)
    fresh = math.sqrt(1 - kept**2)
    course = list(itertools.accumulate(shocks.tolist(), lambda level, shock: kept * level + fresh * shock))
    ratio: Floats = ndtr(-np.interp(t_ns, np.arange(count) * COURSE_STEP_NS, course))
    return ratio


def coded_rate_ratio(attenuation_db: Floats, margin_db: float) -> Floats:
    """The share of the full rate that is left, 0 where not even the most robust coding gets through.

    The full rate is that of DVB-S2's 16APSK 8/9, which bears an attenuation of `margin_db`; beyond, the best coding
    that still works is chosen at once. The most robust, QPSK 1/4, bears 15.24 dB more.
    """
    available_db = CODINGS[-1, 0] - np.maximum(np.asarray(attenuation_db) - margin_db, 0.0)
    choice = np.searchsorted(CODINGS[:, 0], available_db, side="right")
    ratio: Floats = np.concatenate([[0.0], CODINGS[:, 1]])[choice] / CODINGS[-1, 1]
    return ratio


def _fitted(log_f: float, terms: tuple[tuple[float, float, float], ...], line: tuple[float, float]) -> float:
    return sum(a * math.exp(-(((log_f - b) / c) ** 2)) for a, b, c in terms) + line[0] * log_f + line[1]


def _exceeded_a_hundredth_percent_db(
    elevation_rad: Floats,
    depth_km: Floats,
    frequency_ghz: float,
    rain_rate_mm_h: float,
    latitude_rad: float,
    tilt_rad: float,
) -> Floats:
    """Steps 2 to 9 of P.618-13: the attenuation exceeded 0.01 % of the time."""
    sin, cos = np.sin(elevation_rad), np.cos(elevation_rad)
    curved_km = 2 * depth_km / (np.sqrt(sin**2 + 2 * depth_km / EFFECTIVE_EARTH_RADIUS_KM) + sin)
    slant_km = np.where(elevation_rad >= math.radians(5), depth_km / np.maximum(sin, 1e-9), curved_km)
    level_km = np.maximum(slant_km * cos, 1e-9)
    gamma_db_km = specific_attenuation_db_km(rain_rate_mm_h, frequency_ghz, elevation_rad, tilt_rad)
    horizontal = 1 / (1 + 0.78 * np.sqrt(level_km * gamma_db_km / frequency_ghz) - 0.38 * (1 - np.exp(-2 * level_km)))
    steep = np.arctan2(depth_km, level_km * horizontal) > elevation_rad
    rainy_km = np.where(steep, level_km * horizontal / np.maximum(cos, 1e-9), depth_km / np.maximum(sin, 1e-9))
    xi_deg = max(36.0 - math.degrees(latitude_rad), 0.0)
    saturation = 31 * (1 - np.exp(-np.degrees(elevation_rad) / (1 + xi_deg)))
    vertical = 1 / (1 + np.sqrt(sin) * (saturation * np.sqrt(rainy_km * gamma_db_km) / frequency_ghz**2 - 0.45))
    return gamma_db_km * rainy_km * vertical


def _at_percent_db(of_a_hundredth_db: Floats, percent: Floats, elevation_rad: Floats, latitude_rad: float) -> Floats:
    """Step 10 of P.618-13: from 0.01 % to other percentages."""
    low_latitude = min(math.degrees(latitude_rad) - 36.0, 0.0)
    sin = np.sin(elevation_rad)
    lower = 0.0 if low_latitude == 0.0 else np.where(elevation_rad >= math.radians(25), 0.0, 1.8 - 4.25 * sin)
    beta = np.where(percent >= 1, 0.0, -0.005 * low_latitude + lower)
    exponent = 0.655 + 0.033 * np.log(percent) - 0.045 * np.log(of_a_hundredth_db) - beta * (1 - percent) * sin
    return of_a_hundredth_db * (percent / 0.01) ** -exponent
