"""The formats that a plan can be exported to; each is text.

To add one: a module in this package, and a line in `FORMATS`.
"""

from __future__ import annotations

from collections.abc import Callable

from isl_emu.errors import ScenarioError
from isl_emu.export.contact_plans import csv_text, ion_text, ud3tn_text
from isl_emu.export.czml import czml_text
from isl_emu.linkplan.plan import LinkPlan
from isl_emu.scenario.model import Scenario

FORMATS: dict[str, Callable[[LinkPlan, Scenario], str]] = {
    "csv": lambda plan, scenario: csv_text(plan),
    "ion": lambda plan, scenario: ion_text(plan),
    "ud3tn": lambda plan, scenario: ud3tn_text(plan),
    "czml": czml_text,
}


def export_text(plan: LinkPlan, scenario: Scenario, name: str) -> str:
    """The plan in the format called `name`; equal plans give equal text.

    Raises:
        ScenarioError: there is no such format.
    """
    if name not in FORMATS:
        raise ScenarioError(f"format: is {name!r}, but a plan is exported as {', '.join(FORMATS)}; choose one")
    return FORMATS[name](plan, scenario)
