"""What is run: a scenario, and the plans made from it."""

from __future__ import annotations

from dataclasses import dataclass

from isl_emu.linkplan.plan import LinkPlan
from isl_emu.routing.forwarding import RoutePlan
from isl_emu.scenario.model import Scenario


@dataclass(frozen=True)
class Source:
    """What to run: a scenario and the plans made from it, or replayed from a file."""

    scenario: Scenario
    plan: LinkPlan
    routes: RoutePlan
    warnings: tuple[str, ...] = ()  # what to check before trusting the plan
