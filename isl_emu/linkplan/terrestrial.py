"""Lines on the ground: how long light takes along them, as rows of a plan; they are up at every instant."""

from __future__ import annotations

import numpy as np

from isl_emu.geometry.sightline import one_way_delay_ns
from isl_emu.linkplan.plan import Rows
from isl_emu.scenario.ground import EARTH_RADIUS_KM, Located, central_angle_rad
from isl_emu.scenario.ground_network import Place, Terrestrial
from isl_emu.scenario.model import GroundStation, Scenario
from isl_emu.timebase import TimeGrid


def terrestrial_rows(scenario: Scenario, first: int, grid: TimeGrid) -> Rows | None:
    """The rows of all lines at all instants; None if there are no lines.

    Args:
        scenario: whose lines.
        first: the node number of its first station.
        grid: the instants.
    """
    if not scenario.terrestrial:
        return None
    nodes: list[GroundStation | Place] = [*scenario.station, *scenario.place]
    number = {node.name: first + index for index, node in enumerate(nodes)}
    place = {node.name: node for node in nodes}
    ends = np.array([sorted(number[name] for name in line.between) for line in scenario.terrestrial], dtype=np.int64)
    delays_ns = [_delay_ns(line, *(place[name] for name in line.between)) for line in scenario.terrestrial]
    of_line = np.tile(np.arange(len(ends)), grid.count)
    rates_bit_s = np.array([line.rate_bit_s for line in scenario.terrestrial], dtype=np.int64)[of_line]
    return Rows(
        k=np.repeat(np.arange(grid.count, dtype=np.int64), len(ends)),
        a=ends[of_line, 0],
        b=ends[of_line, 1],
        delay_ns=np.array(delays_ns, dtype=np.int64)[of_line],
        rate_ab_bit_s=rates_bit_s,
        rate_ba_bit_s=rates_bit_s,
        loss_ratio=np.array([line.loss_ratio for line in scenario.terrestrial])[of_line],
    )


def _delay_ns(line: Terrestrial, one: Located, other: Located) -> int:
    """The delay of a line: as given, or of light in its fibre."""
    if line.delay_ns is not None:
        return line.delay_ns
    length_km = (
        line.length_km if line.length_km is not None else line.detour * EARTH_RADIUS_KM * central_angle_rad(one, other)
    )
    return int(one_way_delay_ns(np.float64(length_km * line.refraction)))
