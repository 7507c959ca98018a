"""Which nodes need routes towards them.

A table of all pairs grows with the square of the nodes, and most of it would never carry a packet.
"""

from __future__ import annotations

import numpy as np

from isl_emu.linkplan.plan import LinkPlan
from isl_emu.parts.part import EVERY_NODE_UP_TO
from isl_emu.parts.registry import PARTS
from isl_emu.scenario.model import Scenario


def active_endpoints(scenario: Scenario, plan: LinkPlan) -> np.ndarray:
    """The destinations of a run: all nodes of a small network, and those with traffic of a large one.

    Traffic have the stations, both ends of every pair with disjoint paths, and the endpoints of all parts. Other
    satellites of a large network forward, and can be reached by their neighbours only.

    Returns:
        Node indices in rising order, int64, shape (D,).
    """
    names = plan.nodes.names
    if len(names) <= EVERY_NODE_UP_TO:
        return np.arange(len(names))
    disjoint = scenario.routing.disjoint
    active = {*scenario.station_names, *(name for pair in (disjoint.pairs if disjoint else ()) for name in pair)}
    for part in PARTS:
        active.update(part.endpoints(scenario, plan))
    return np.array([node for node, name in enumerate(names) if name in active], dtype=np.int64)
