"""Published figures of lasers in service beside what our geometry and our pointing, acquisition and tracking say."""

from __future__ import annotations

import math

from isl_emu.validate import lasers

# T. Brashears, Achieving > 99 % link uptime on a fleet of 100G space laser inter-satellite links in LEO, SPIE Photonics
# West, 2024-01-30, as reported by PCMag
LASERS, ACQUISITIONS_A_DAY = 9_000, 266_141
LONGEST_LINK_KM, FASTEST_ACQUISITION_S, UPTIME = 5_400, 12, 0.99
EARTH_KM = 6_378.137  # equatorial radius, WGS84
ALTITUDE_KM = 550


def main() -> None:
    """Print a row for each figure: theirs, ours, difference."""
    each = ACQUISITIONS_A_DAY / LASERS
    days = {seconds: lasers.day_of_a_laser(seconds) for seconds in lasers.UPTIME}
    sight_km = 2 * math.sqrt((EARTH_KM + ALTITUDE_KM) ** 2 - EARTH_KM**2)
    clear_km = 2 * math.sqrt((EARTH_KM + ALTITUDE_KM) ** 2 - (EARTH_KM + 80) ** 2)
    print(f"{'figure':<58}  {'theirs':>8}  {'ours':>8}")
    acquisitions, _ = days[FASTEST_ACQUISITION_S]
    print(f"{'acquisitions of a laser in a day':<58}  {each:8.2f}  {acquisitions:8.2f}")
    for seconds, (_, uptime) in days.items():
        print(f"{f'uptime, {seconds} s an acquisition':<58}  {f'> {UPTIME:.2f}':>8}  {uptime:8.4f}")
    print(f"{'longest acquisition that leaves this uptime (s)':<58}  {'':>8}  {(1 - UPTIME) * 86_400 / each:8.1f}")
    print(f"{f'longest link at {ALTITUDE_KM} km (km), touching the ground':<58}  {LONGEST_LINK_KM:8}  {sight_km:8.0f}")
    print(f"{'the same, 80 km clear of it':<58}  {LONGEST_LINK_KM:8}  {clear_km:8.0f}")


main()
