"""A live run as its parts see it: the built network, the containers, the clock, and where to write what."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from isl_emu.linkplan.plan import LinkPlan
from isl_emu.nodes.containers import Container
from isl_emu.parts.residents import Resident
from isl_emu.progress import Report, Steps
from isl_emu.runs.clock import RunClock
from isl_emu.runs.execution import Execution
from isl_emu.runs.folder import RunFolder
from isl_emu.runs.portion import Portion
from isl_emu.runs.process import Watch
from isl_emu.scenario.model import Scenario

if TYPE_CHECKING:  # Mininet is slow to import, and where a run is only planned it is not needed
    from isl_emu.network.net import IslNet


@dataclass(frozen=True)
class Phases:
    """The phases of a live run's beginning: shown, and their durations written down."""

    steps: Steps
    execution: Execution

    @contextmanager
    def __call__(self, name: str, text: str) -> Iterator[Report]:
        """A step that is shown, and whose duration is added to what is recorded under `name`."""
        begun = self.steps.wall_s()
        with self.steps.step(text) as report:
            yield report
        spent_s = self.execution.phases_s.get(name, 0.0) + self.steps.wall_s() - begun
        self.execution.phases_s[name] = round(spent_s, 3)


@dataclass(frozen=True)
class LiveRun:
    """A live run, with its network built and before its instant 0.

    Args:
        containers: of the satellites that run programs, by name.
        watch: what writes down that something dies that is to last as long as the run.
        residents: what runs in the nodes for the whole of the run, as faults see it; parts enter theirs.
        undo: ends what a part has started, when the emulated time is over or the run fails.
    """

    folder: RunFolder
    scenario: Scenario
    plan: LinkPlan
    clock: RunClock
    net: IslNet
    containers: Mapping[str, Container]
    watch: Watch
    phase: Phases
    undo: ExitStack
    residents: list[Resident] = field(default_factory=list)

    @property
    def portion(self) -> Portion:
        """The nodes that are on this kernel."""
        return self.net.portion

    def is_here(self, node: str) -> bool:
        """Whether a node is on this kernel."""
        return bool(self.portion.here[self.plan.nodes.index(node)])

    @property
    def exact(self) -> bool:
        """Whether its time is virtual: computing takes none, and nothing depends on how busy the machine is."""
        return self.phase.execution.clock == "exact"
