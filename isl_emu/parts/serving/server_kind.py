"""A kind of model server: what its servers need, how they are checked and started, and how their pace is judged.

Each kind is a subclass of `ServerKind` entered in `kinds.KINDS`; what a scenario may say of it is
in `isl_emu.scenario.compute`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from isl_emu.nodes.containers import Container
from isl_emu.parts.activity import Activity
from isl_emu.parts.finished_run import FinishedRun
from isl_emu.parts.live_run import LiveRun
from isl_emu.parts.part import Need, Pace
from isl_emu.parts.serving.modelled_specification import Specification
from isl_emu.scenario.compute import Compute

Facts = Mapping[str, Any]  # of a group's servers, by the columns of the table `servers`


@dataclass(frozen=True)
class ServerGroup:
    """A group of satellites whose servers are of one kind, in a live run.

    Args:
        satellites: all that are in it.
        ready: those that have their model from the start; the others are started by who brings it.
    """

    compute: Compute
    satellites: tuple[str, ...]
    ready: tuple[str, ...]

    def containers(self, live: LiveRun) -> list[Container]:
        """The containers in which servers are to be started."""
        return [live.containers[name] for name in self.ready]


@dataclass(frozen=True)
class Started:
    """What came of starting the servers of some groups.

    Args:
        facts: of each group, in order.
        activities: the processes that serve and must be watched; what is in containers is not among them.
        specifications: of those that one process for all kinds serves at a board's pace.
    """

    facts: Sequence[Facts]
    activities: Sequence[Activity] = ()
    specifications: Sequence[Specification] = ()


@dataclass(frozen=True)
class PaceJudgement:
    """Whether servers that stand for other computers kept their pace.

    Args:
        figures: by their names under `pace` in fidelity.json; None where nothing was measured.
        reasons: why the run is invalid.
    """

    figures: Mapping[str, Any] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()


class ServerKind(ABC):
    """One kind of model server; the defaults are those of servers that are not in containers.

    Attributes:
        key: its name, as `Compute.kind` has it.
        few: whether a scenario names each of them on purpose, so that they come first among those that users may ask.
    """

    key: ClassVar[str]
    few: ClassVar[bool] = True

    def needs(self, group: Compute, satellites: Sequence[str]) -> Iterable[Need]:
        """What each server needs in its satellite's container; nothing if it is not in one."""
        return ()

    def check(self, group: Compute, place: str) -> Sequence[Path]:
        """Whether its servers are possible, before anything is built; the files of weights that they load.

        Args:
            place: where the network is built, "host" or "guest".

        Raises:
            WorkloadError: a file is no model or does not fit into a server's memory; a program or a key is missing.
            MachineError: a server outside cannot be reached from there.
        """
        return ()

    def real_time(self, group: Compute) -> str | None:
        """Why a group's servers need real time; None if they can have exact time, in which computing takes none."""
        return f'compute.server is "{group.server}", whose answers would take no time to compute'

    @abstractmethod
    def facts(self, group: Compute) -> Facts:
        """What is known of a group's servers without starting them."""

    @abstractmethod
    def start(self, live: LiveRun, groups: Sequence[ServerGroup]) -> Started:
        """Start the servers of all groups of this kind, and return when they are ready to answer.

        Raises:
            WorkloadError: one does not come up.
        """

    def pace_text(self, row: Facts) -> str:
        """How fast a group decodes, in a few words, by its row of the table `servers`."""
        pace, whose = row["decode_tokens_s"], row["paced_as"]
        return "its own pace" if pace is None else f"{pace:.3g} tokens/s" + (f", as {whose}" if "@" in whose else "")

    def judge(self, run: FinishedRun, pace: Pace) -> PaceJudgement:
        """Whether its servers kept their pace; asked of each kind, also where the run has none of it.

        Args:
            pace: what other parts left of it.
        """
        return PaceJudgement()

    def pace_lines(self, figures: Facts) -> Iterable[str]:
        """Lines of the summary's section on servers, by the figures that `judge` has found."""
        return ()
