"""Which satellites users may ask: in a large constellation not every one that serves.

It is apart from `requests`, which the process that asks reads too: that needs none of the servers' code.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from isl_emu.linkplan.plan import LinkKind, LinkPlan
from isl_emu.parts.part import EVERY_NODE_UP_TO
from isl_emu.parts.serving.kinds import kind_of
from isl_emu.scenario.model import Scenario

REACH = 64  # where the scenario has no questions


def asked_satellites(scenario: Scenario, plan: LinkPlan) -> tuple[str, ...]:
    """The satellites that users may ask, in node order: all that serve; in a large network, `questions.reach` of them.

    Each needs a route on every node, and those routes change all the time: 2,400 of them on 2,800 nodes would be seven
    million.

    If more serve, these come first: one that the scenario names as the target; those whose servers are few;
    those that are linked to a station with users, the longest first. The rest are taken at even distances from all
    others, so that every shell and plane has its share.
    """
    reach = scenario.questions.reach if scenario.questions else REACH
    serving = scenario.serving_satellites
    if len(serving) <= reach or len(plan.nodes.names) <= EVERY_NODE_UP_TO:
        return serving
    first = list(dict.fromkeys([*_named(scenario), *_overhead(scenario, plan, set(serving))]))[:reach]
    others = [name for name in serving if name not in set(first)]
    at = np.linspace(0, len(others), reach - len(first), endpoint=False).astype(int)
    found = {*first, *(others[place] for place in at)}
    return tuple(name for name in serving if name in found)


def _named(scenario: Scenario) -> list[str]:
    """The satellites that the scenario puts there on purpose."""
    serving = scenario.serving_satellites
    target = [name for name in serving if scenario.questions and name == scenario.questions.target]
    groups = {name: scenario.compute_of(name) for name in serving}
    return target + [name for name, group in groups.items() if group is None or kind_of(group).few]


def _overhead(scenario: Scenario, plan: LinkPlan, serving: Collection[str]) -> list[str]:
    """The satellites that are linked to a station with users, by how often they are."""
    stations = [plan.nodes.index(name) for name in scenario.asking_stations]
    ground = plan.links.kind[plan.row_link] == LinkKind.GROUND
    a, b = plan.links.a[plan.row_link[ground]], plan.links.b[plan.row_link[ground]]
    linked = np.concatenate([a[np.isin(b, stations)], b[np.isin(a, stations)]])
    counts = np.bincount(linked, minlength=len(plan.nodes.names))
    ordered = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]
    return [name for node in ordered if (name := plan.nodes.names[node]) in serving]
