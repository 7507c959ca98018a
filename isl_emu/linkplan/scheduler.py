"""An operator's scheduler: which satellites each terminal has in each slot of a clock that all terminals share.

At the beginning of a slot every satellite that a terminal sees for the whole slot has a utility: the sum of what it is
like times the scheduler's weights, and what nobody outside knows, drawn from a Gumbel distribution. The satellites of
most utility are taken. So the chance of each goes with the exponential of its weighted sum (a multinomial logit).

Source: D. McFadden, Conditional logit analysis of qualitative choice behavior, 1974; that such a scheduler is at work,
with slots of 15 s from the seconds 12, 27, 42 and 57 of each minute: H. Tanveer et al., Making sense of constellations,
CoNEXT Companion 2023, and N. Mohan et al., A multifaceted look at Starlink performance, WWW 2024.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone

import numpy as np

from isl_emu.arrays import Bools, Floats, Ints
from isl_emu.linkplan.draws import uniform
from isl_emu.linkplan.sightings import View, find_passes
from isl_emu.scenario.ground import Scheduler
from isl_emu.scenario.model import GroundStation, Scenario
from isl_emu.timebase import TimeGrid
from isl_emu.units import NS_PER_S

RIGHT_ANGLE_RAD = np.pi / 2
LAUNCHES_A_YEAR = 250.0  # that a designator's number is divided by: 223 in 2023, 261 in 2024 (J. McDowell's reports)
UNIX_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


@dataclass(frozen=True)
class Slot:
    """One slot, as far as it lies in a run: the instants from `begin_k` on and before `end_k`."""

    number: int  # since 1970
    begin_k: int
    end_k: int  # of the last slot perhaps beyond the run


def unix_ns(moment: datetime) -> int:
    """A moment in ns since 1970-01-01T00:00 UTC, without leap seconds."""
    since = moment - UNIX_EPOCH
    return (since.days * 86_400 + since.seconds) * NS_PER_S + since.microseconds * 1_000


def slots_of(scheduler: Scheduler, grid: TimeGrid) -> list[Slot]:
    """The slots of a run, by a clock that counts from 1970-01-01T00:00 UTC without leap seconds."""
    start_ns = unix_ns(grid.start) - scheduler.phase_ns
    number = (start_ns + grid.offsets_ns) // scheduler.interval_ns
    begin_k = np.flatnonzero(np.diff(number, prepend=number[0] - 1))
    ends_ns = (number[begin_k] + 1) * scheduler.interval_ns - start_ns
    end_k = -(-ends_ns // grid.step_ns)
    return [Slot(*slot) for slot in zip(number[begin_k].tolist(), begin_k.tolist(), end_k.tolist())]


def launch_years(scenario: Scenario) -> Floats:
    """When each satellite was launched, as a year with its fraction: of its shell, or by its TLE's designator.

    The designator's number of the launch in its year says when in the year it was, to some months; nan where nobody
    says; shape (N,).
    """
    years = []
    for shell in scenario.shell:
        of_shell = np.nan if shell.launched is None else shell.launched.year + shell.launched.timetuple().tm_yday / 366
        designators = [satellite.tle[0][9:14].strip() if satellite.tle else "" for satellite in shell.satellite]
        of_each = [_launch_year(designator) for designator in designators] or [np.nan] * shell.count
        years += [of_shell if np.isnan(year) else year for year in of_each]
    return np.array(years, dtype=np.float64)


def _launch_year(designator: str) -> float:
    """The year of an international designator such as 24123: two digits of the year, three of the launch."""
    if len(designator) != 5 or not designator.isdigit():
        return np.nan
    year = int(designator[:2])
    return (2000 if year < 57 else 1900) + year + min(int(designator[2:]) / LAUNCHES_A_YEAR, 0.99)


@dataclass(frozen=True)
class Assignments:
    """What the scheduler has given so far: for each slot and satellite, by when the slot begins, how many links."""

    grid: TimeGrid
    seed: int
    launch_year: Floats  # (N,), nan where it is not known
    _loads: Counter[tuple[int, int]] = field(default_factory=Counter)

    def choose(self, station: GroundStation, view: View) -> Bools:
        """Which sightings of a terminal become links; they count for the terminals that come after it.

        Args:
            station: a scheduled one.
            view: with the separation from the geostationary arc at the first instant of each slot.

        Returns:
            bool (V,).
        """
        terms = station.scheduler or Scheduler()
        passes, chosen = find_passes(view), np.zeros(len(view.k), dtype=bool)
        of_sighting, before = passes.of_sighting, np.empty(0, dtype=np.int64)
        for slot, here in _sightings(view, slots_of(terms, self.grid)):
            now = here[view.k[here] == slot.begin_k]
            now = now[view.gso_rad[now] >= terms.gso_separation_rad] if view.gso_rad is not None else now
            now = now[~view.avoided[now]] if view.avoided is not None else now
            satellite = view.satellite[now]
            begin_ns = slot.number * terms.interval_ns + terms.phase_ns
            utility = self._utility(terms, view, now, before, begin_ns)
            if terms.randomness:
                drawn = uniform(self.seed, f"scheduler {station.name}", slot.number, satellite)
                utility -= terms.randomness * np.log(-np.log(drawn))
            ends_early = passes.set_k[of_sighting[now]] < slot.end_k
            best = now[np.lexsort((satellite, -utility, ends_early))[: station.antennas]]
            chosen[here[np.isin(of_sighting[here], of_sighting[best])]] = True
            before = view.satellite[best]
            self._loads.update((begin_ns, one) for one in before.tolist())
        return chosen

    def _utility(self, terms: Scheduler, view: View, now: Ints, before: Ints, begin_ns: int) -> Floats:
        """What is known of the sightings `now`, weighed; float64, of their shape."""
        weights, satellite = terms.weights, view.satellite[now]
        utility = weights.elevation * view.elevation_rad[now] / RIGHT_ANGLE_RAD
        utility += weights.keep * np.isin(satellite, before)
        if view.gso_rad is not None:
            utility += weights.gso * view.gso_rad[now] / RIGHT_ANGLE_RAD
        if weights.load:
            utility -= weights.load * np.array([self._loads[begin_ns, one] for one in satellite.tolist()])
        year = self.launch_year[satellite]
        if weights.age and np.isfinite(year).any():
            utility += weights.age * np.nan_to_num(year - np.nanmean(year))  # who is not dated counts as of mean age
        weighed: Floats = utility
        return weighed


def _sightings(view: View, slots: list[Slot]) -> Iterator[tuple[Slot, Ints]]:
    """Each slot with the numbers of its sightings."""
    first = np.searchsorted(view.k, [slot.begin_k for slot in slots])
    last = np.searchsorted(view.k, [slot.end_k for slot in slots])
    for slot, begin, end in zip(slots, first.tolist(), last.tolist()):
        yield slot, np.arange(begin, end)
