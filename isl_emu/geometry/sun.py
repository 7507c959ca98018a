"""The mean Sun, to which local times of ascending nodes refer."""

from __future__ import annotations

import math
from datetime import datetime, timezone

J2000 = datetime(2000, 1, 1, 12, tzinfo=timezone.utc)  # in UT1, which UTC follows to 0.9 s
SECONDS_PER_CENTURY = 36_525 * 86_400.0


def mean_sun_right_ascension_rad(moment: datetime) -> float:
    """The right ascension of the mean Sun, referred to the mean equinox of date (as TEME is), in 0..2 pi.

    Neglects the polynomial's higher terms and UT1 - UTC: less than 0.01 deg, or 3 s of local time, in these decades.

    Source: D. Vallado, Fundamentals of Astrodynamics and Applications, 4th edition, algorithm 29.
    """
    centuries = (moment - J2000).total_seconds() / SECONDS_PER_CENTURY
    return math.radians(280.460 + 36_000.771 * centuries) % (2 * math.pi)


def raan_of_local_time_rad(local_time: str, moment: datetime) -> float:
    """The RAAN whose ascending node has the local mean solar time `local_time` ("HH:MM") at `moment`, in 0..2 pi.

    At 12:00 the node lies under the mean Sun; each hour later is 15 deg further east.
    """
    hours, minutes = local_time.split(":")
    east_of_sun_rad = (int(hours) + int(minutes) / 60 - 12) * math.pi / 12
    return (mean_sun_right_ascension_rad(moment) + east_of_sun_rad) % (2 * math.pi)
