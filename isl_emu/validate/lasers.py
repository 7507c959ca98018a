"""The duty cycle of real lasers, through our pointing, acquisition and tracking.

SpaceX's 9,000 lasers made 266,141 acquisitions a day, about 30 each, and were up more than 99 % of the time; at a
seconds an acquisition that is 1 - 30 a/86,400. A satellite that turns 15 times a day and changes its partner at the
equator makes as many.

Source: T. Brashears, Achieving > 99 % link uptime on a fleet of 100G space laser inter-satellite links in LEO, SPIE
Photonics West 2024.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timezone

import numpy as np

from isl_emu.linkplan.build import plan_links
from isl_emu.linkplan.plan import LinkState
from isl_emu.scenario.model import Scenario
from isl_emu.validate.check import Check

GROUP = "Laser duty cycle (SpaceX, Photonics West 2024)"
DAY_S = 86_400
ACQUISITIONS = 30  # of one laser in a day
UPTIME = {12: 0.9958, 60: 0.979}  # by the seconds that one takes, with the digits that are given
EPOCH = datetime(2026, 3, 20, tzinfo=timezone.utc)


def checks() -> Iterator[Check]:
    """Acquisitions in a day, and the share of it in which the laser carries data."""
    for acquisition_s, stated in UPTIME.items():
        begun, uptime = day_of_a_laser(acquisition_s)
        name = f"one laser, {acquisition_s} s an acquisition"
        yield Check(GROUP, f"{name}: acquisitions in a day", ACQUISITIONS, begun)
        exact = 1 - ACQUISITIONS * acquisition_s / DAY_S
        yield Check(GROUP, f"{name}: uptime, exact", exact, uptime, 1e-9)
        yield Check(GROUP, f"{name}: uptime, as stated", stated, uptime, 0.0005)


def day_of_a_laser(acquisition_s: int) -> tuple[int, float]:
    """Acquisitions in a day of a laser that changes its partner at the equator, and the share of it that it tracks."""
    # three in a row with a terminal each; instants are an acquisition apart, so none falls between two
    terminal = {"mounts": ("free",), "acquisition": f"{acquisition_s} s"}
    lasers = {
        "topology": f"{__name__}:by_hemisphere",
        "interval": f"{acquisition_s} s",
        "grazing_altitude": "0 km",
        "terminal": (terminal,),
    }
    orbit = {"mean_motion": "15 rev/day", "inclination": "97.7 deg"}
    satellites = tuple({"name": f"s{n}", "mean_anomaly": f"{90 + 10 * n} deg", **orbit} for n in range(3))
    shell = {"name": "row", "satellite": satellites, "lasers": lasers}
    time = {"start": EPOCH, "duration": f"{DAY_S} s", "step": f"{acquisition_s} s"}
    plan = plan_links(Scenario.model_validate({"name": "duty-cycle", "time": time, "shell": (shell,)}), "")
    tracking = len(plan.row_link) / plan.grid.count  # the first satellite's terminal serves one link at a time
    return int((plan.events.state == LinkState.ACQUIRING).sum()), tracking


def by_hemisphere(names: tuple[str, ...], r_km: np.ndarray, v_km_s: np.ndarray) -> np.ndarray:
    """A pairing as a user would write it: the first satellite with the second in the north, the third in the south."""
    del names, v_km_s
    return np.array([[0, 1 if r_km[0, 2] > 0 else 2]])
