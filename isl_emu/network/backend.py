"""What replay needs of a network, be it a kernel's or a fake one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from isl_emu.network.naming import Wiring

ROUTE = np.dtype([("node", "i4"), ("destination", "i4"), ("link", "i4")])
"""A route of a node to a node or alias over a link, or NO_ROUTE. One over several links is as many rows, together."""

UNKNOWN_LINK = -2  # a route of ours that leads somewhere the plan knows no link


class Backend(Protocol):
    """A network whose link ends and routes are set to what they should be, and read back.

    Every method raises NetworkError if the network refuses.
    """

    wiring: Wiring

    def change_ends(self, which: np.ndarray, states: np.ndarray) -> None:
        """Shape the ends `which` (C,) exactly as `states` (desired.END, (C,)) says; what is queued stays queued."""

    def change_routes(self, routes: np.ndarray) -> None:
        """Make, replace or (NO_ROUTE) withdraw routes; ROUTE, (C,). Withdrawals come last.

        Rows with the same node and destination are one route over several links, among which flows are spread.
        """

    def read_ends(self, nodes: Sequence[int]) -> np.ndarray:
        """The shaping found at the ends of some nodes; desired.FOUND. An end without its netem is not in it."""

    def read_routes(self, nodes: Sequence[int]) -> dict[str, np.ndarray]:
        """The routes found at some nodes, for each address family; ROUTE."""
