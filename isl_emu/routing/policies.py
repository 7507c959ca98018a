"""Routing policies: how each node's next hops are chosen at an instant.

To add one: a function here (or a class in a module of its own), a line in `POLICIES`, and its name among the values of
`policy` in `scenario/routing.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from isl_emu.linkplan.plan import LinkPlan
from isl_emu.routing.shortest import HOP, EqualCost, Search
from isl_emu.scenario.routing import Routing
from isl_emu.scenario.user_functions import planning_function

Policy = Callable[[LinkPlan, int, np.ndarray, np.ndarray], np.ndarray]
"""Next hops of one instant: (plan, k, destinations (D,), next hops of the instant before (D, N)) -> (D, N), int32.

Each entry is the index of an up link at the node, or NO_ROUTE. Following them must come nearer to the destination.
"""


def shortest_delay(plan: LinkPlan, k: int, destinations: np.ndarray, before: np.ndarray) -> np.ndarray:
    """The least sum of delays; whatever was before."""
    del before
    return Search(plan, k, destinations, hop_cost=0).next_links()


def fewest_hops(plan: LinkPlan, k: int, destinations: np.ndarray, before: np.ndarray) -> np.ndarray:
    """The fewest links, and among those paths the least delay."""
    del before
    return Search(plan, k, destinations, hop_cost=HOP).next_links()


def stable(hysteresis_ns: int) -> Policy:
    """The least sum of delays, but a next hop is kept while no other is better by more than `hysteresis_ns`.

    A kept next hop must still be nearer to the destination by shortest delay, as a new one is by construction, so the
    next hops never form a loop. A path may then be longer than the shortest by up to `hysteresis_ns` at each hop.
    """

    def policy(plan: LinkPlan, k: int, destinations: np.ndarray, before: np.ndarray) -> np.ndarray:
        return Search(plan, k, destinations, hop_cost=0).next_links_near(before, hysteresis_ns)

    return policy


def equal_cost(routing: Routing) -> Policy:
    """Equal-cost multipath with the scenario's settings."""
    return EqualCost(by_hops=routing.equal_by == "hops", tolerance_ns=routing.tolerance_ns, most=routing.next_hops)


@dataclass(frozen=True)
class NamedPolicy:
    """A policy that a scenario can name.

    Args:
        make: it, with the settings of a scenario's `[routing]`.
        remembers: whether the next hops of an instant depend on those of the instant before.
    """

    make: Callable[[Routing], Policy]
    remembers: bool = False


POLICIES = {
    "shortest-delay": NamedPolicy(lambda routing: shortest_delay),
    "fewest-hops": NamedPolicy(lambda routing: fewest_hops),
    "stable": NamedPolicy(lambda routing: stable(routing.hysteresis_ns), remembers=True),
    "ecmp": NamedPolicy(equal_cost),
    "none": NamedPolicy(lambda routing: shortest_delay),  # what those who route are compared with
}


def policy_of(routing: Routing) -> Policy:
    """The policy that a scenario names: one of ours, or a user's function as ``package.module:function``.

    Raises:
        ScenarioError: the function cannot be imported.
    """
    if ":" in routing.policy:
        return planning_function(routing.policy, "routing.policy", 4)
    return POLICIES[routing.policy].make(routing)


def remembers(routing: Routing) -> bool:
    """Whether the next hops of an instant may depend on those of the instant before; of a user's nobody knows."""
    return ":" in routing.policy or POLICIES[routing.policy].remembers
