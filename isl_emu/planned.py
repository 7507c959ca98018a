"""What a plan can tell: its nodes, its links over time, and the paths through it.

Pictures, exports and runs read a `PlannedNetwork`; `isl_emu.api.Plan` is the same with all that can be made of it.
"""

from __future__ import annotations

import difflib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from isl_emu.errors import ScenarioError
from isl_emu.geometry.orbits import orbit_warnings
from isl_emu.linkplan import plan_file
from isl_emu.linkplan.build import never_linked, plan_links
from isl_emu.linkplan.plan import LinkPlan
from isl_emu.linkplan.plan_file import Told
from isl_emu.linkplan.step_check import StepCheck, check_step
from isl_emu.linkplan.tables import contacts_table, events_table, links_table
from isl_emu.routing.paths import (
    MOST_LINKS,
    NodePath,
    PathFinder,
    delays_ns,
    disjoint_paths_at,
    path_at,
    paths_at,
    paths_to,
    route_at,
)
from isl_emu.scenario.faults import rounded_faults
from isl_emu.scenario.model import Scenario
from isl_emu.scenario.parse import format_scenario, load_scenario, parse_scenario, with_changes
from isl_emu.spill import Spill
from isl_emu.units import seconds_text

MOST_PATHS = 16  # more equal ones than anybody reads
MOST_THREADS = 16  # each holds a chunk of some 20 MB, and more than these wait for what goes instant by instant
ANEW = "change the scenario, and plan it again"


@dataclass(frozen=True)
class NamedPath:
    """A way through the network: its nodes from source to destination, and the one-way delay of each hop.

    Packets are lost at hops that are `cut`, counted from 0: by a fault of which those know nothing who route.
    """

    nodes: tuple[str, ...]
    hop_delays_ns: tuple[int, ...]
    cut: tuple[int, ...] = ()

    @property
    def delay_ns(self) -> int:
        """The one-way delay of the whole path."""
        return sum(self.hop_delays_ns)

    @property
    def hops(self) -> int:
        """How many links the path has."""
        return len(self.nodes) - 1


class PlannedNetwork:
    """A scenario and its link plan: which links exist, when, how good they are, and which paths they make.

    Args:
        link_plan: the record that the emulator itself reads (numpy arrays, one row per link up and instant).
        scenario: what it was made from.
    """

    def __init__(self, link_plan: LinkPlan, scenario: Scenario):
        self.link_plan = link_plan
        self.scenario = scenario
        self._finders: dict[int, PathFinder] = {}

    def __repr__(self) -> str:
        grid = self.link_plan.grid
        return (
            f"<{type(self).__name__} {self.scenario.name}: {len(self.nodes)} nodes, "
            f"{len(self.link_plan.links.a)} links, "
            f"{grid.count} instants {seconds_text(grid.step_ns)} apart from {grid.start.isoformat()}>"
        )

    @property
    def nodes(self) -> tuple[str, ...]:
        """Names of the N nodes, satellites first."""
        return self.link_plan.nodes.names

    @property
    def times(self) -> np.ndarray:
        """The K instants, UTC, datetime64[ns], shape (K,)."""
        grid = self.link_plan.grid
        return np.datetime64(grid.start.replace(tzinfo=None), "ns") + grid.offsets_ns.astype("timedelta64[ns]")

    @cached_property
    def links(self) -> pa.Table:
        """One row for each link that is up at least once."""
        return links_table(self.link_plan)

    @cached_property
    def contacts(self) -> pa.Table:
        """One row for each contact, ordered by link and time."""
        return contacts_table(self.link_plan)

    @cached_property
    def events(self) -> pa.Table:
        """One row for each change of a link's state, ordered by time and link."""
        return events_table(self.link_plan)

    @cached_property
    def step_check(self) -> StepCheck:
        """What the time step does to this plan: the largest change of a delay, and what is expected to be missed."""
        return check_step(self.link_plan)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What to check before trusting the plan; one sentence each."""
        return (
            *scenario_warnings(self.scenario),
            *self.step_check.warnings,
            *self._too_long(),
            *self._faults_without_events(),
        )

    def _faults_without_events(self) -> Iterator[str]:
        faults = self.link_plan.faults
        for number in sorted({*range(len(faults.names))} - {*faults.fault.tolist()}):
            yield (
                f"fault {faults.names[number]}: strikes nothing in this run, but a fault is there to strike; let it be "
                "more frequent, look at its region, or run for longer"
            )

    @property
    def digest(self) -> str:
        """SHA-256 over the whole plan, hexadecimal; equal plans have equal digests."""
        return self.link_plan.digest()

    def path_delay_ns(self, a: str, b: str) -> np.ma.MaskedArray:
        """The one-way delay from node `a` to node `b` along the routes of the scenario's policy.

        The first call for a `b` searches one tree an instant (some ms with thousands of satellites); further ones for
        the same `b` follow it.

        Returns:
            ns, int64, masked where there is no route or a fault has cut it, shape (K,).

        Raises:
            ScenarioError: there is no such node.
        """
        source, destination = self.index(a), self.index(b)
        return delays_ns(self._finder(destination), source, destination, self.link_plan.grid.count)

    def path(self, a: str, b: str, k: int) -> NamedPath | None:
        """The path from node `a` to node `b` at instant `k` (negative counts from the end); None without a route.

        Raises:
            ScenarioError: there is no such node or instant.
        """
        source, destination, instant = self.index(a), self.index(b), self._instant(k)
        if destination in self._finders:
            path = self._finders[destination].path(source, destination, instant)
        else:
            path = path_at(self.link_plan, self.scenario.routing, source, destination, instant)
        return self._named(path, instant) if path else None

    def paths(self, a: str, b: str, k: int) -> list[NamedPath]:
        """All paths that packets from `a` to `b` may take at instant `k`, by rising delay; at most the first 16.

        Several only with the policy "ecmp"; empty without a route.

        Raises:
            ScenarioError: there is no such node or instant.
        """
        ends, instant = (self.index(a), self.index(b)), self._instant(k)
        found = paths_at(self.link_plan, self.scenario.routing, *ends, instant, MOST_PATHS)
        return [self._named(path, instant) for path in found]

    def disjoint_paths(self, a: str, b: str, k: int) -> list[NamedPath | None]:
        """The disjoint paths of a pair of `routing.disjoint` at instant `k`, None where there is none now.

        Empty for other pairs.

        Raises:
            ScenarioError: there is no such node or instant.
        """
        ends, instant = (self.index(a), self.index(b)), self._instant(k)
        found = disjoint_paths_at(self.link_plan, self.scenario.routing, *ends, instant)
        return [self._named(path, instant) if path else None for path in found]

    def no_path(self, a: str, b: str, k: int) -> str:
        """Why there is no path from node `a` to node `b` at instant `k`, where there is none: a sentence without end.

        Raises:
            ScenarioError: there is no such node or instant.
        """
        ends = self.index(a), self.index(b)
        route = route_at(self.link_plan, self.scenario.routing, *ends, self._instant(k))
        return f"{a} cannot reach {b}" + (
            f": the route has {route.hops} links, but IP carries a packet over {MOST_LINKS} at most" if route else ""
        )

    def _too_long(self) -> Iterator[str]:
        """Which watched pairs have no path at the first instant, because their route is too long for IP."""
        for a, b in self.scenario.watched_pairs:
            route = route_at(self.link_plan, self.scenario.routing, self.index(a), self.index(b), 0)
            if route and route.hops > MOST_LINKS:
                yield f"{self.no_path(a, b, 0)}; name nearer ends, or choose another routing policy"

    def _named(self, path: NodePath, k: int) -> NamedPath:
        links, cut = self.link_plan.rows_of(k, path.links)
        names = tuple(self.nodes[node] for node in path.nodes)
        return NamedPath(names, tuple(links.delay_ns.tolist()), tuple(np.flatnonzero(cut).tolist()))

    def _finder(self, destination: int) -> PathFinder:
        if destination not in self._finders:
            self._finders[destination] = paths_to(self.link_plan, self.scenario.routing, destination)
        return self._finders[destination]

    def index(self, name: str) -> int:
        """The number of the node called `name`.

        Raises:
            ScenarioError: there is no such node.
        """
        try:
            return self.link_plan.nodes.index(name)
        except KeyError:
            close = difflib.get_close_matches(str(name), self.nodes, n=1)
            hint = f"did you mean {close[0]}?" if close else f"one is {self.nodes[0]}"
            raise ScenarioError(f"node: is {name!r}, but the plan has no such node; {hint}") from None

    def _instant(self, k: int) -> int:
        count = self.link_plan.grid.count
        if not hasattr(k, "__index__") or not -count <= k < count:
            raise ScenarioError(f"instant: is {k!r}, but the plan has {count}; choose one from 0 to {count - 1}")
        return k % count


def scenario_warnings(scenario: Scenario) -> tuple[str, ...]:
    """What a scenario alone gives reason to check: stale elements, links that can never be, faults between instants.

    Raises:
        ScenarioError: the elements cannot be made.
    """
    rounded = rounded_faults(scenario.fault, scenario.time.step_ns)
    return (*orbit_warnings(scenario), *never_linked(scenario), *rounded)


def plan_network(
    scenario: Scenario, changes: dict[str, Any] | None = None, told: Told = lambda done, detail: None
) -> PlannedNetwork:
    """The scenario planned, with top-level fields replaced, as in TOML; empty ones are not, and None takes one away.

    Args:
        scenario: to be planned.
        changes: in place of what it says.
        told: is told how much is planned, 0 to 1, and in words.

    Raises:
        ScenarioError: a change that cannot be, or an orbit that does not exist or does not hold.
    """
    given = {key: value for key, value in (changes or {}).items() if value != {}}
    resolved = with_changes(scenario, **given) if given else scenario
    threads = min(len(os.sched_getaffinity(0)), MOST_THREADS)
    several = partial(in_threads, threads) if threads > 1 else map
    count = resolved.time.grid.count

    def in_order(function: Callable[[int], Any], numbers: Iterable[int]) -> Iterator[Any]:
        instants = list(numbers)
        for k, found in zip(instants, several(function, instants), strict=True):
            told(k / count, f"instant {k:,} of {count:,}")
            yield found
        told(1.0, "putting the rows together")

    return PlannedNetwork(plan_links(resolved, format_scenario(resolved), in_order, Spill().empty), resolved)


def in_threads(threads: int, function: Callable[[int], Any], numbers: Iterable[int]) -> Iterator[Any]:
    """As `map`, but so many numbers are worked on at once, and no more are ahead of who reads.

    They are threads as what takes long lets go of Python's lock: numpy and SGP4.
    """
    with ThreadPoolExecutor(threads) as pool:
        ahead: deque[Future[Any]] = deque()
        try:
            for number in numbers:
                if len(ahead) > threads:
                    yield ahead.popleft().result()
                ahead.append(pool.submit(function, number))
            while ahead:
                yield ahead.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def read_planned(path: Path) -> PlannedNetwork:
    """The plan that was saved in a file, with the scenario that it carries.

    Raises:
        ScenarioError: there is no such file, it is not a link plan of this format, or it was altered.
    """
    link_plan = plan_file.read_plan(path)
    return PlannedNetwork(link_plan, parse_scenario(link_plan.scenario_toml, str(path)))


def open_planned(
    path: Path | Scenario, changes: dict[str, Any], told: Told = lambda done, detail: None
) -> PlannedNetwork:
    """The plan in a file, or the plan made from the scenario in it; a saved plan's sky cannot be changed.

    Args:
        path: of the file, or a scenario that was read already.
        changes: top-level scenario fields to replace, as in TOML.
        told: is told how much is planned, 0 to 1, and in words.

    Raises:
        ScenarioError: the file cannot be read, or a change cannot be made.
    """
    if isinstance(path, Scenario):
        return plan_network(path, changes, told)
    if path.suffix != ".parquet":
        return plan_network(load_scenario(path), changes, told)
    saved = read_planned(path)
    changed = with_changes(saved.scenario, **changes)
    for key in ("start", "duration_ns", "step_ns"):
        if getattr(saved.scenario.time, key) != getattr(changed.time, key):
            raise ScenarioError(f"time.{key.removesuffix('_ns')}: is changed, but the sky of {path} is fixed; {ANEW}")
    if saved.scenario.link_settings != changed.link_settings:
        raise ScenarioError(f"node: says something else of links, but those of {path} are fixed; {ANEW}")
    for key in ("rate_scale", "orbits", "shell", "inter_shell", "station"):
        if getattr(saved.scenario, key) != getattr(changed, key):
            raise ScenarioError(f"{key}: is changed, but the sky of {path} is fixed; {ANEW}")
    return PlannedNetwork(saved.link_plan, changed)
