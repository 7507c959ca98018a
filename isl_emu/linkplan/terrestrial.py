"""Lines on the ground: how long light takes along them, as rows of a plan; they are up at every instant."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from isl_emu.geometry.sightline import one_way_delay_ns
from isl_emu.linkplan.plan import Rows
from isl_emu.scenario.ground import EARTH_RADIUS_KM, Located, central_angle_rad
from isl_emu.scenario.ground_network import Place, Terrestrial
from isl_emu.scenario.model import GroundStation, Scenario


@dataclass(frozen=True)
class Lines:
    """The lines on the ground; all arrays have shape (T,)."""

    a: np.ndarray  # int64, node index
    b: np.ndarray  # int64, node index, b > a
    delay_ns: np.ndarray  # int64
    rate_bit_s: np.ndarray  # int64
    loss_ratio: np.ndarray  # float64

    def rows(self, first: int, count: int) -> Rows:
        """All lines at some instants."""
        of_line = np.tile(np.arange(len(self.a)), count)
        return Rows(
            k=np.repeat(np.arange(first, first + count, dtype=np.int64), len(self.a)),
            a=self.a[of_line],
            b=self.b[of_line],
            delay_ns=self.delay_ns[of_line],
            rate_ab_bit_s=self.rate_bit_s[of_line],
            rate_ba_bit_s=self.rate_bit_s[of_line],
            loss_ratio=self.loss_ratio[of_line],
        )


def terrestrial_lines(scenario: Scenario, first: int) -> Lines | None:
    """All lines; None if there are none.

    Args:
        scenario: whose lines.
        first: the node number of its first station.
    """
    if not scenario.terrestrial:
        return None
    nodes: list[GroundStation | Place] = [*scenario.station, *scenario.place]
    number = {node.name: first + index for index, node in enumerate(nodes)}
    place = {node.name: node for node in nodes}
    lines = scenario.terrestrial
    ends = np.array([sorted(number[name] for name in line.between) for line in lines], dtype=np.int64)
    delays_ns = [_delay_ns(line, *(place[name] for name in line.between)) for line in lines]
    return Lines(
        a=ends[:, 0],
        b=ends[:, 1],
        delay_ns=np.array(delays_ns, dtype=np.int64),
        rate_bit_s=np.array([line.rate_bit_s for line in lines], dtype=np.int64),
        loss_ratio=np.array([line.loss_ratio for line in lines], dtype=np.float64),
    )


def _delay_ns(line: Terrestrial, one: Located, other: Located) -> int:
    """The delay of a line: as given, or of light in its fibre."""
    if line.delay_ns is not None:
        return line.delay_ns
    length_km = (
        line.length_km if line.length_km is not None else line.detour * EARTH_RADIUS_KM * central_angle_rad(one, other)
    )
    return int(one_way_delay_ns(np.float64(length_km * line.refraction)))
