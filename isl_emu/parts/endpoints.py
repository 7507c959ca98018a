"""Which nodes need routes towards them.

A table of all pairs grows with the square of the nodes, and most of it would never carry a packet.
"""

from __future__ import annotations

import numpy as np

from isl_emu.linkplan.plan import LinkPlan
from isl_emu.parts.questions.asked import EVERY_NODE_UP_TO, asked_satellites
from isl_emu.scenario.model import Scenario
from isl_emu.scenario.training_groups import training_satellites


def active_endpoints(scenario: Scenario, plan: LinkPlan) -> np.ndarray:
    """The destinations of a run: all nodes of a small network, and those with traffic of a large one.

    Traffic has the stations, the satellites that users may ask or that run a part of a split model or train one, both
    ends of every probed pair and of every pair with disjoint paths, and the nodes of a user's programs and workloads.
    Other satellites of a large network forward, and can be reached by their neighbours only.

    Returns:
        Node indices in rising order, int64, shape (D,).
    """
    names = plan.nodes.names
    if len(names) <= EVERY_NODE_UP_TO:
        return np.arange(len(names))
    probed = {name for pair in scenario.probes.pairs for name in pair}
    split = {name for split in scenario.split for name in split.members(scenario.satellite_names)}
    disjoint = scenario.routing.disjoint
    probed |= {name for pair in disjoint.pairs for name in pair} if disjoint else set()
    training = {name for job in scenario.training for name in training_satellites(scenario, job)}
    computing = {*asked_satellites(scenario, plan), *split, *training, *scenario.uplinked_satellites}
    active = {*scenario.station_names, *computing, *scenario.visited_nodes, *probed}
    return np.array([node for node, name in enumerate(names) if name in active], dtype=np.int64)
