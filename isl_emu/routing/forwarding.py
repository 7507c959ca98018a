"""The route plan: each node's next hop to each destination, instant by instant, stored as changes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

NO_ROUTE = -1


@dataclass(frozen=True)
class RouteChanges:
    """Next hops that change at one instant, C of them; all arrays int32, shape (C,)."""

    node: np.ndarray  # the node whose table changes
    destination: np.ndarray  # the node that is reached
    link: np.ndarray  # the link to send on, or NO_ROUTE


@dataclass(frozen=True)
class RoutePlan:
    """All next-hop changes of a run; the changes of instant 0 start from empty tables.

    The rows of instant k are `row_start[k]:row_start[k + 1]`.
    """

    destinations: np.ndarray  # int32 (D,), node indices that have routes
    row_start: np.ndarray  # int64 (K+1,)
    row_node: np.ndarray  # int32 (R,)
    row_destination: np.ndarray  # int32 (R,), node index
    row_link: np.ndarray  # int32 (R,), link index or NO_ROUTE

    def changes(self, k: int) -> RouteChanges:
        """What changes at instant `k`."""
        rows = slice(self.row_start[k], self.row_start[k + 1])
        return RouteChanges(self.row_node[rows], self.row_destination[rows], self.row_link[rows])
