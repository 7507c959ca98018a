"""isl-emu from Python: load a scenario, plan its sky, and ask the plan. The command line uses nothing else.

import isl_emu

scenario = isl_emu.load("topologies/three-body.toml")
plan = isl_emu.plan(scenario, duration_s=600, step_s=1)
plan.path_delay_ns("gs-miyun", "p00s06")      # one way, int64, masked where unreachable, shape (K,)
plan.contacts.to_pandas()                     # labelled tables (Arrow)
plan.save("three-body.plan.parquet")
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from isl_emu.errors import ScenarioError
from isl_emu.export.formats import export_text
from isl_emu.geometry.orbit_warnings import orbit_warnings
from isl_emu.linkplan import plan_file
from isl_emu.linkplan.build import plan_links
from isl_emu.linkplan.plan import LinkPlan
from isl_emu.linkplan.step_check import StepCheck, check_step
from isl_emu.linkplan.tables import contacts_table, events_table, links_table
from isl_emu.routing import paths
from isl_emu.routing.paths import PathFinder
from isl_emu.routing.series import delays_ns, disjoint_paths_at, path_at, paths_at, paths_to
from isl_emu.scenario.model import Scenario
from isl_emu.scenario.parse import format_scenario, load_scenario, parse_scenario, with_changes
from isl_emu.units import NS_PER_S

__all__ = ["NamedPath", "Plan", "Scenario", "format_scenario", "load", "plan", "read_plan", "scenario_warnings"]

MOST_PATHS = 16  # more equal ones than anybody reads
scenario_warnings = orbit_warnings  # what a scenario alone gives reason to check


@dataclass(frozen=True)
class NamedPath:
    """A way through the network: its nodes from source to destination, and the one-way delay of each hop."""

    nodes: tuple[str, ...]
    hop_delays_ns: tuple[int, ...]

    @property
    def delay_ns(self) -> int:
        """The one-way delay of the whole path."""
        return sum(self.hop_delays_ns)

    @property
    def hops(self) -> int:
        """How many links the path has."""
        return len(self.nodes) - 1


class Plan:
    """The link plan of a scenario: which links exist, when, and how good they are.

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
            f"<Plan {self.scenario.name}: {len(self.nodes)} nodes, {len(self.link_plan.links.a)} links, "
            f"{grid.count} instants {grid.step_ns / NS_PER_S:g} s apart from {grid.start.isoformat()}>"
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
        return (*orbit_warnings(self.scenario), *self.step_check.warnings)

    @property
    def digest(self) -> str:
        """SHA-256 over the whole plan, hexadecimal; equal plans have equal digests."""
        return self.link_plan.digest()

    def path_delay_ns(self, a: str, b: str) -> np.ma.MaskedArray:
        """The one-way delay from node `a` to node `b` along the routes of the scenario's policy.

        The first call for a `b` searches one tree an instant (some ms with thousands of satellites); further ones for
        the same `b` follow it.

        Returns:
            ns, int64, masked where there is no route, shape (K,).

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
        return [path and self._named(path, instant) for path in found]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the plan as one Parquet file, which `read_plan`, `isl-emu run` and other tools read.

        Raises:
            ScenarioError: it cannot be written there.
        """
        try:
            plan_file.write_plan(self.link_plan, Path(path))
        except OSError as error:
            reason = error.strerror or str(error)
            raise ScenarioError(f"{path}: cannot be written ({reason}); name another file") from None

    def export(self, name: str) -> str:
        """The plan as text in another format: "csv", "ion", "ud3tn" or "czml"; equal plans give equal text.

        Raises:
            ScenarioError: there is no such format.
        """
        return export_text(self.link_plan, self.scenario, name)

    def summary(self) -> str:
        """Nodes, links, ground contacts and what the time step does, as text."""
        from isl_emu.show.text import summary

        return summary(self)

    def draw(
        self,
        folder: str | os.PathLike[str],
        pairs: Sequence[tuple[str, str]] = (),
        links: Sequence[tuple[str, str]] = (),
    ) -> list[Path]:
        """Write pictures (PNG): contacts, map, ranges and rates of links, degree, and delays of paths.

        Args:
            folder: made if need be.
            pairs: of nodes, for the path delay; some that tell most if empty.
            links: by the names of their ends, for range and rate; some that tell most if empty.

        Returns:
            The files.

        Raises:
            ScenarioError: a node or link that is not in the plan, or a folder that cannot be written.
        """
        from isl_emu.show.draw import draw

        return draw(self, Path(folder), pairs, links)

    def _named(self, path: paths.Path, k: int) -> NamedPath:
        up = self.link_plan.snapshot(k)
        delays_ns = up.delay_ns[np.searchsorted(up.link, path.links)]
        return NamedPath(tuple(self.nodes[node] for node in path.nodes), tuple(delays_ns.tolist()))

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
            close = difflib.get_close_matches(name, self.nodes, n=1)
            hint = f"did you mean {close[0]}?" if close else f"one is {self.nodes[0]}"
            raise ScenarioError(f"node: is {name!r}, but the plan has no such node; {hint}") from None

    def _instant(self, k: int) -> int:
        count = self.link_plan.grid.count
        if not -count <= k < count:
            raise ScenarioError(f"instant: is {k}, but the plan has {count}; choose one from 0 to {count - 1}")
        return k % count


def load(path: str | os.PathLike[str]) -> Scenario:
    """The scenario in a TOML file.

    Raises:
        ScenarioError: the file cannot be read, is no TOML, or breaks a rule; all problems at once.
    """
    return load_scenario(Path(path))


def plan(
    scenario: Scenario,
    *,
    start: datetime | str | None = None,
    duration_s: float | None = None,
    step_s: float | None = None,
    seed: int | None = None,
) -> Plan:
    """The link plan of a scenario; equal scenarios give equal plans, byte for byte.

    Args:
        scenario: from `load`.
        start: UTC, instead of what the scenario says; text as in ISO 8601 (``2026-03-20T14:00:00Z``).
        duration_s: instead of what the scenario says.
        step_s: instead of what the scenario says.
        seed: of all random choices, instead of what the scenario says.

    Raises:
        ScenarioError: a time that cannot be, or an orbit that does not exist or does not hold.
    """
    time = {"start": _utc(start), "duration": _duration(duration_s), "step": _duration(step_s)}
    given = {key: value for key, value in time.items() if value is not None}
    return changed_plan(scenario, {"time": given, "seed": seed})


def changed_plan(scenario: Scenario, changes: dict[str, Any]) -> Plan:
    """The link plan of a scenario with top-level fields replaced, as in TOML; those that are None or empty are not."""
    changes = {key: value for key, value in changes.items() if value is not None and value != {}}
    resolved = with_changes(scenario, **changes) if changes else scenario
    return Plan(plan_links(resolved, format_scenario(resolved)), resolved)


def read_plan(path: str | os.PathLike[str]) -> Plan:
    """The plan that `Plan.save` or `isl-emu plan` wrote.

    Raises:
        ScenarioError: there is no such file, it is not a link plan of this format, or it was altered.
    """
    link_plan = plan_file.read_plan(Path(path))
    return Plan(link_plan, parse_scenario(link_plan.scenario_toml, str(path)))


def open_plan(path: Path, changes: dict[str, Any]) -> Plan:
    """The plan in a file, or the plan made from the scenario in it; a saved plan's sky cannot be changed.

    Args:
        changes: top-level scenario fields to replace, as in TOML.
    """
    if path.suffix != ".parquet":
        return changed_plan(load(path), changes)
    if "duration" in changes.get("time", {}):
        raise ScenarioError(f"--duration: {path} is a saved plan, but its duration is fixed; plan the scenario again")
    saved = read_plan(path)
    return Plan(saved.link_plan, with_changes(saved.scenario, **changes))


def _utc(start: datetime | str | None) -> datetime | None:
    if not isinstance(start, str):
        return start
    try:
        return datetime.fromisoformat(start.replace("Z", "+00:00"))
    except ValueError:
        raise ScenarioError(
            f"start: is {start!r}, but a time is written as in ISO 8601; write for example 2026-03-20T14:00:00Z"
        ) from None


def _duration(seconds: float | None) -> str | None:
    return None if seconds is None else f"{round(seconds * NS_PER_S)} ns"
