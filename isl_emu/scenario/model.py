"""A whole scenario: frozen records, one per TOML table.

Attributes carry the inner unit in their name (`altitude_km`); in the TOML text the same key is written without it and
with the unit in the value (``altitude = "525 km"``). `docs/scenario.md` describes the format for users.
Nothing here looks at the machine: a scenario that is valid on one computer is valid on all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Literal

from pydantic import Field, model_validator

from isl_emu.errors import ScenarioError
from isl_emu.scenario.compute import Compute, Groups
from isl_emu.scenario.ground import GroundStation
from isl_emu.scenario.kv_handover import KvHandover
from isl_emu.scenario.lasers import InterShell, LaserLinks
from isl_emu.scenario.matching import matching, unmatched
from isl_emu.scenario.power import Power
from isl_emu.scenario.programs import Program, UserWorkload
from isl_emu.scenario.quantities import Duration, NodeName, Record, UtcTime
from isl_emu.scenario.questions import Questions
from isl_emu.scenario.routing import DisjointPaths, Routing
from isl_emu.scenario.space import Orbits, Satellite, Shell, Walker
from isl_emu.scenario.split import Split
from isl_emu.scenario.training import Training
from isl_emu.scenario.uplink import Uplink
from isl_emu.timebase import TimeGrid

__all__ = [
    "Compute",
    "DisjointPaths",
    "FidelityLimits",
    "GroundStation",
    "InterShell",
    "LaserLinks",
    "Orbits",
    "Power",
    "Probes",
    "Program",
    "Questions",
    "Routing",
    "Satellite",
    "Scenario",
    "Shell",
    "Split",
    "Time",
    "Uplink",
    "UserWorkload",
    "Walker",
]

MOST_INSTANTS = 10_000_000  # at one link each, a plan of half a gigabyte


class Time(Record):
    """When the run takes place, how finely the sky is sampled, and how slowly the emulated time passes."""

    start: UtcTime
    duration_ns: Duration = Field(alias="duration")
    step_ns: Duration = Field(alias="step", default=1_000_000_000)
    slowdown: float = Field(ge=1.0, le=1000.0, default=1.0)

    @model_validator(mode="after")
    def _whole_steps(self) -> Time:
        if self.duration_ns < self.step_ns:
            raise ValueError("step is longer than duration; shorten it")
        if self.duration_ns > self.step_ns * MOST_INSTANTS:
            raise ValueError(f"has more than {MOST_INSTANTS:,} instants, and no machine holds so many; lengthen step")
        return self

    @property
    def grid(self) -> TimeGrid:
        """The instants of the run."""
        return TimeGrid.covering(self.start, self.duration_ns, self.step_ns)


class Probes(Record):
    """One-way probes, in both directions of each pair, that compare measured with planned delay along the run."""

    interval_ns: Duration = Field(alias="interval", default=1_000_000_000)
    pairs: tuple[tuple[NodeName, NodeName], ...] = ()


class FidelityLimits(Record):
    """A run beyond any of these is marked invalid, with the reason."""

    lateness_p99_ns: Duration = Field(alias="lateness_p99", default=250_000_000)
    probe_error_per_hop_p50_ns: Duration = Field(alias="probe_error_per_hop_p50", default=250_000)
    probe_error_p95_ns: Duration = Field(alias="probe_error_p95", default=10_000_000)
    cpu_saturated_ratio: float = Field(ge=0.0, le=1.0, default=0.1)
    cpu_waiting_ratio: float = Field(ge=0.0, le=1.0, default=0.2)
    token_lateness_p99_ns: Duration = Field(alias="token_lateness_p99", default=50_000_000)
    throttled_error_ratio: float = Field(ge=0.0, le=1.0, default=0.2)


class Scenario(Record):
    """A complete experiment."""

    name: NodeName
    description: str = ""
    seed: int = Field(ge=0, default=1)
    rate_scale: float = Field(gt=0.0, le=1.0, default=1.0)
    time: Time
    orbits: Orbits = Orbits()
    shell: tuple[Shell, ...] = Field(min_length=1)
    inter_shell: tuple[InterShell, ...] = ()
    station: tuple[GroundStation, ...] = ()
    routing: Routing = Routing()
    compute: Groups = ()
    split: tuple[Split, ...] = ()
    kv_handover: tuple[KvHandover, ...] = ()
    power: tuple[Power, ...] = ()
    uplink: Uplink | None = None
    questions: Questions | None = None
    program: tuple[Program, ...] = ()
    workload: tuple[UserWorkload, ...] = ()
    training: tuple[Training, ...] = ()
    probes: Probes = Probes()
    fidelity: FidelityLimits = FidelityLimits()

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
    def computing_satellites(self) -> tuple[str, ...]:
        """Names of the satellites that run a model server, in node order."""
        names = self.satellite_names
        found = {name for group in self.compute for name in matching(group.satellites, names)}
        return tuple(name for name in names if name in found)

    @property
    def serving_satellites(self) -> tuple[str, ...]:
        """Names of the satellites that can be asked: those that run a model server, and the heads of split models."""
        names = self.satellite_names
        found = {*self.computing_satellites, *(split.head(names) for split in self.split)}
        return tuple(name for name in names if name in found)

    def compute_of(self, satellite: str) -> Compute | None:
        """The group that a satellite is in; None if it runs no model server."""
        return next((group for group in self.compute if matching(group.satellites, (satellite,))), None)

    def matching_satellites(self, patterns: Literal["all"] | Sequence[str]) -> tuple[str, ...]:
        """The satellites that a list of names and shell-style patterns means, in node order.

        Raises:
            ScenarioError: a pattern matches none.
        """
        if problems := list(unmatched("satellites", patterns, self.satellite_names)):
            raise ScenarioError(*problems)
        return matching(patterns, self.satellite_names)

    @property
    def uplinked_satellites(self) -> tuple[str, ...]:
        """Names of the satellites that get their model during the run, in node order."""
        if self.uplink is None:
            return ()
        if self.uplink.satellites != "all":
            return matching(self.uplink.satellites, self.satellite_names)
        real = [group for group in self.compute if group.server == "real"]
        names = self.satellite_names
        found = {name for group in real for name in matching(group.satellites, names)}
        return tuple(name for name in names if name in found)

    @property
    def uplink_stations(self) -> tuple[str, ...]:
        """Names of the stations that have the file to send up."""
        if self.uplink is None:
            return ()
        return self.station_names if self.uplink.stations == "all" else self.uplink.stations

    @property
    def asking_stations(self) -> tuple[str, ...]:
        """Names of the stations from which questions come."""
        if self.questions is None:
            return ()
        return self.station_names if self.questions.stations == "all" else self.questions.stations

    @property
    def visited_nodes(self) -> tuple[str, ...]:
        """Names of the nodes in which a user's programs and workloads are."""
        programs = (program.node for program in self.program)
        return (*programs, *(node for workload in self.workload for node in workload.nodes))

    @property
    def least_context_tokens(self) -> int:
        """The smallest context among the models that answer questions."""
        return min(group.context_tokens for group in (*self.compute, *self.split))

    @property
    def users_by_station(self) -> dict[str, float]:
        """How users are spread over the asking stations: any positive numbers."""
        asking, users = self.asking_stations, self.questions.users if self.questions else "equal"
        if users == "population":
            return {station.name: station.population or 0 for station in self.station if station.name in asking}
        return {name: users[name] if isinstance(users, dict) else 1.0 for name in asking}
