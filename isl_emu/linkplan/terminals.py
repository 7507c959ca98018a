"""The laser terminals of all satellites: where each is mounted, what it sees, and how fast it turns and acquires."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from isl_emu.arrays import Floats
from isl_emu.scenario.model import Shell

AXES = {  # fore, starboard, zenith
    "fore": (1, 0, 0), "aft": (-1, 0, 0), "starboard": (0, 1, 0), "port": (0, -1, 0), "zenith": (0, 0, 1),
    "nadir": (0, 0, -1), "free": (0, 0, 0),
}  # fmt: skip
AT_REST = (1.0, 0.0, 0.0)  # where a terminal without an axis points at first: fore
NONE = -1


@dataclass(frozen=True)
class Terminals:
    """T terminals, ordered by satellite; arrays have shape (T,) but where it says otherwise."""

    satellite: np.ndarray  # int64, node index
    axis: Floats  # float64 (T, 3), the mount's direction in the local orbital frame; zeros for a free one
    least_cos: np.ndarray  # float64, cosine of the field of regard's half-angle
    slew_rate_rad_s: np.ndarray  # float64; inf for one that turns in no time
    acquisition_ns: np.ndarray  # int64
    in_shell: np.ndarray  # bool, it serves links within its shell
    between_shells: np.ndarray  # bool, it serves links to other shells
    of_satellite: np.ndarray  # int64 (N, M), each satellite's terminals, filled up with NONE

    @property
    def rest(self) -> np.ndarray:
        """Where each points before its first link, shape (T, 3)."""
        mounted = self.axis.any(axis=1, keepdims=True)
        return np.where(mounted, self.axis, AT_REST)


def constellation_terminals(shells: Sequence[Shell]) -> Terminals:
    """The terminals of all satellites of all shells, in the order of the nodes."""
    satellites, types, mounts, first = [], [], [], 0
    for shell in shells:
        ours = [(terminal, mount) for terminal in shell.lasers.terminal for mount in terminal.mounts]
        satellites.append(np.repeat(np.arange(first, first + shell.count), len(ours)))
        types += [terminal for terminal, _ in ours] * shell.count
        mounts += [AXES[mount] for _, mount in ours] * shell.count
        first += shell.count
    satellite = np.concatenate(satellites).astype(np.int64)
    starts = np.searchsorted(satellite, np.arange(first))
    place = np.arange(len(satellite)) - starts[satellite]
    of_satellite = np.full((first, int(place.max(initial=-1)) + 1), NONE, dtype=np.int64)
    of_satellite[satellite, place] = np.arange(len(satellite))
    rates_rad_s = [terminal.slew_rate_rad_s for terminal in types]
    return Terminals(
        satellite=satellite,
        axis=np.array(mounts, dtype=np.float64).reshape(-1, 3),
        least_cos=np.array([math.cos(terminal.field_of_regard_rad) for terminal in types]),
        slew_rate_rad_s=np.array([math.inf if rate is None else rate for rate in rates_rad_s]),
        acquisition_ns=np.array([terminal.acquisition_ns for terminal in types], dtype=np.int64),
        in_shell=np.array([terminal.serves != "inter-shell" for terminal in types], dtype=bool),
        between_shells=np.array([terminal.serves != "shell" for terminal in types], dtype=bool),
        of_satellite=of_satellite,
    )
