"""What a user should know about the orbits of a scenario before trusting its plan."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from isl_emu.geometry.elements import DAY, constellation_elements
from isl_emu.geometry.orbits import failures, find_positions
from isl_emu.scenario.model import Scenario
from isl_emu.units import NS_PER_S

NS_PER_DAY = 86_400 * NS_PER_S
POSITIONS_AT_ONCE = 500_000


def orbit_warnings(scenario: Scenario) -> tuple[str, ...]:
    """One sentence for each shell with stale elements, and for each satellite without a position at some instant.

    Satellites without a position are looked for only where the scenario masks them, since elsewhere planning refuses
    them; this propagates the whole run again.

    Raises:
        ScenarioError: the elements cannot be made.
    """
    return (*_stale(scenario), *_masked(scenario))


def _stale(scenario: Scenario) -> Iterator[str]:
    """Shells with satellites whose own elements hold too long before or after the start."""
    elements, first = constellation_elements(scenario), 0
    age_day = np.abs((scenario.time.start - elements.epoch) / DAY - elements.epoch_day)
    allowed_day = scenario.orbits.stale_after_ns / NS_PER_DAY
    for shell in scenario.shell:
        dated = np.array([bool(one.tle or one.epoch) for one in shell.satellite], dtype=bool)
        ages_day = np.where(dated, age_day[first : first + shell.count], 0.0) if dated.any() else np.zeros(1)
        if ages_day.max() > allowed_day:
            yield (
                f"shell {shell.name}: the elements of {int((ages_day > allowed_day).sum())} of its {shell.count} "
                f"satellites hold more than {allowed_day:g} days from the start (the furthest, of "
                f"{elements.names[first + int(ages_day.argmax())]}, {ages_day.max():.1f} days), but they lose one to "
                f"three km a day; take newer ones, or raise orbits.stale_after"
            )
        first += shell.count


def _masked(scenario: Scenario) -> Iterator[str]:
    """Satellites that fly without links because they have no position."""
    if scenario.orbits.on_bad != "mask":
        return
    elements, grid, found = constellation_elements(scenario), scenario.time.grid, set()
    chunk = max(1, POSITIONS_AT_ONCE // len(elements.names))
    for begin in range(0, grid.count, chunk):
        offsets_ns = grid.offsets_ns[begin : begin + chunk]
        _, errors = find_positions(elements, grid.start, offsets_ns, scenario.orbits)
        for n, k, reason in failures(elements, errors):
            if n not in found:
                found.add(n)
                yield (
                    f"satellite {elements.names[n]}: {reason} at {offsets_ns[k] / NS_PER_S:g} s; "
                    f"it has no links while it has no position"
                )
