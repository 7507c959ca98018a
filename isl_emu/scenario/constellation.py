"""The base of a scenario, below all that it carries: its name, its time, its satellites and its ground stations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from isl_emu.errors import ScenarioError
from isl_emu.limits import INSTANTS, PLAN_ROWS, duration_text, size_text
from isl_emu.scenario.ground import GroundStation
from isl_emu.scenario.ground_network import Place, Terrestrial, ground_network_contradictions
from isl_emu.scenario.lasers import InterShell, laser_contradictions
from isl_emu.scenario.matching import matching, repeated, unmatched
from isl_emu.scenario.quantities import NAME_LENGTH, Duration, NodeName, Record, UtcTime
from isl_emu.scenario.space import Orbits, Shell
from isl_emu.scenario.terminals import Terminals
from isl_emu.timebase import TimeGrid
from isl_emu.units import DURATION_NS, format_quantity

ROW_BYTE = 76  # of a link at an instant, while it is planned: in memory, beyond a gigabyte in temporary files
ROW_S = 20e-6  # to plan it, measured: three-body in steps of 10 ms


class Time(Record):
    """When the run takes place, how finely the sky is sampled, and by which clock the emulated time passes.

    `clock`: "exact" is virtual time, "real" the machine's; "auto" is exact where the machine and the scenario allow it.
    """

    start: UtcTime
    duration_ns: Duration = Field(alias="duration")
    step_ns: Duration = Field(alias="step", default=1_000_000_000)
    slowdown: float = Field(ge=1.0, le=1000.0, default=1.0)
    clock: Literal["auto", "exact", "real"] = "auto"

    @model_validator(mode="after")
    def _whole_steps(self) -> Time:
        if self.duration_ns < self.step_ns:
            raise ValueError("step is longer than duration, but a run has an instant at least; shorten it")
        if excess := INSTANTS.excess(self.duration_ns / self.step_ns, "duration / step"):
            raise ValueError(f"has a duration that {excess}")
        return self

    @property
    def grid(self) -> TimeGrid:
        """The instants of the run."""
        return TimeGrid.covering(self.start, self.duration_ns, self.step_ns)


class Constellation(Record):
    """Satellites and ground stations, for some time."""

    name: NodeName
    description: str = ""
    seed: int = Field(ge=0, default=1)
    rate_scale: float = Field(gt=0.0, le=1.0, default=1.0)
    time: Time
    orbits: Orbits = Orbits()
    shell: tuple[Shell, ...] = Field(min_length=1)
    inter_shell: tuple[InterShell, ...] = ()
    station: tuple[GroundStation, ...] = ()
    terminals: tuple[Terminals, ...] = ()
    place: tuple[Place, ...] = ()
    terrestrial: tuple[Terrestrial, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _expand_terminals(cls, table: Any) -> Any:
        """The stations that tables of terminals stand for, after the others; the field tells what is wrong."""
        groups = table.get("terminals") if isinstance(table, dict) else None
        if not groups or not isinstance(groups, tuple):
            return table
        stations, seed = table.get("station", ()), table.get("seed", 1)
        if not isinstance(stations, tuple) or not isinstance(seed, int) or seed < 0:
            return table
        try:
            found = [one for group in groups for one in Terminals.model_validate(group).stations(seed)]
        except ValidationError:
            return table
        return {**{key: value for key, value in table.items() if key != "terminals"}, "station": (*stations, *found)}

    @property
    def satellite_names(self) -> tuple[str, ...]:
        """Node names of all satellites, by shell and within it by plane and slot, or as they are given.

        With several shells the name of a satellite of a pattern begins with its shell's.
        """
        several = len(self.shell) > 1
        return tuple(
            f"{shell.name}-{name}" if several and shell.walker else name
            for shell in self.shell
            for name in shell.local_names
        )

    @property
    def fastest_laser_bit_s(self) -> int:
        """The highest rate that any of its lasers has; 0 without lasers."""
        return max(
            (links.rate_bit_s for links in (*(shell.lasers for shell in self.shell), *self.inter_shell) if links),
            default=0,
        )

    @property
    def epoch(self) -> datetime:
        """When the elements of patterns hold, and of satellites that have no epoch of their own; UTC."""
        return self.orbits.epoch or self.time.start

    @property
    def resolved(self) -> bool:
        """Whether all satellites are known, and not only the files that hold them."""
        return all(shell.resolved for shell in self.shell)

    @property
    def satellites_by_shell(self) -> Iterator[tuple[Shell, tuple[str, ...]]]:
        """Each shell with the node names of its satellites."""
        names, first = self.satellite_names, 0
        for shell in self.shell:
            yield shell, names[first : first + shell.count]
            first += shell.count

    @property
    def station_names(self) -> tuple[str, ...]:
        """Node names of all ground stations."""
        return tuple(station.name for station in self.station)

    @property
    def place_names(self) -> tuple[str, ...]:
        """Node names of all places without antennas."""
        return tuple(place.name for place in self.place)

    @property
    def node_names(self) -> tuple[str, ...]:
        """Names of all nodes: satellites, then stations, then other places."""
        return (*self.satellite_names, *self.station_names, *self.place_names)

    def matching_satellites(self, patterns: Literal["all"] | Sequence[str]) -> tuple[str, ...]:
        """The satellites that a list of names and shell-style patterns means, in node order.

        Raises:
            ScenarioError: a pattern matches none.
        """
        if problems := list(unmatched("satellites", patterns, self.satellite_names)):
            raise ScenarioError(*problems)
        return matching(patterns, self.satellite_names)


def constellation_contradictions(constellation: Constellation) -> Iterator[str]:
    """Problems of shells, stations and lasers that show beside each other."""
    shells = constellation.shell
    yield from repeated("shell", [shell.name for shell in shells])
    yield from repeated("node", constellation.node_names)
    for shell in shells:
        long = len(f"{shell.name}-{shell.local_names[-1]}") > NAME_LENGTH
        if len(shells) > 1 and shell.walker and long:
            yield (
                f"shell {shell.name!r} makes names of satellites of more than {NAME_LENGTH} characters, but that is "
                f"the most; shorten its name"
            )
    yield from ground_network_contradictions(
        constellation.terrestrial, constellation.station, constellation.place_names, constellation.satellite_names
    )
    shell_of = {name: shell.name for shell, names in constellation.satellites_by_shell for name in names}
    lasers = [(shell.name, shell.lasers) for shell in shells]
    yield from laser_contradictions(lasers, constellation.inter_shell, shell_of)
    satellites = len(shell_of)
    links = sum(len(shell.lasers.pairs) or 2 * shell.count for shell in shells if shell.lasers.topology != "none")
    links += sum(min(station.antennas, satellites) for station in constellation.station)
    links += len(constellation.terrestrial)
    rows = constellation.time.duration_ns / constellation.time.step_ns * max(satellites, links)
    costs = f"{size_text(rows * ROW_BYTE)} of temporary files and {duration_text(rows * ROW_S)} to plan"
    if excess := PLAN_ROWS.excess(rows, costs):
        yield f"time.step is {format_quantity(constellation.time.step_ns, DURATION_NS)}, which {excess}"
