"""What a run can carry is a part: questions, model servers, training, a user's programs, probes, ...

Each lives in a folder of its own beside this file; a subclass of `Part` says what it does from planning to results.
The rest of the house loops over `registry.PARTS` and names none of them; docs/architecture.md tells how to add one.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, NamedTuple, Protocol

import numpy as np
import pyarrow as pa

from isl_emu.errors import IslEmuError
from isl_emu.files import everybody_may_read
from isl_emu.linkplan.plan import MTU_BYTE, LinkPlan
from isl_emu.network.desired import GSO_MOST_BYTE, GSO_TIME_NS
from isl_emu.partition.load import Flow
from isl_emu.parts.activity import Activity
from isl_emu.parts.finished_run import ConcludedRun, FinishedRun
from isl_emu.parts.live_run import LiveRun
from isl_emu.progress import Steps
from isl_emu.routing.forwarding import RoutePlan
from isl_emu.runs.clock import RunTimes
from isl_emu.runs.directory import RunDirectory
from isl_emu.runs.folder import RunFolder
from isl_emu.runs.merging import Records
from isl_emu.scenario.model import Scenario
from isl_emu.show.chapter import Chapter
from isl_emu.units import NS_PER_S


@dataclass(frozen=True)
class Source:
    """What to run: a scenario and the plans made from it, or replayed from a file."""

    scenario: Scenario
    plan: LinkPlan
    routes: RoutePlan
    warnings: tuple[str, ...] = ()  # what to check before trusting the plan


@dataclass(frozen=True)
class Need:
    """What one of a node's programs needs; a node may have several, such as to serve a model and to get it.

    Args:
        cpus: share of one core, at the scenario's own pace; 0 if it shares what there is for the node's other programs.
            Where all of them do, they have a whole core.
        memory_byte: the most that it may take.
        expected_byte: the most that it is expected to take, without the files in `visible`; a guest has room for that.
        visible: files and folders that it reads; files are in memory once for all.
        pids: the most processes and threads of the node.
        image: what the user's programs in the node see in place of the machine's files.
        total: cpus and memory, where they are more than 0, are what the node has in all, whatever its programs need.
    """

    node: str
    cpus: float
    memory_byte: int
    expected_byte: int
    visible: tuple[Path, ...] = ()
    pids: int | None = None
    image: Path | None = None
    total: bool = False


@dataclass(frozen=True)
class Traffic:
    """About what one thing sends in a whole run, as far as the scenario tells.

    Args:
        what: the thing, as a user knows it.
        messages: small ones, a packet each.
        byte: in bulk, in packets as long as the links allow.
        scaled: whether it is less with a smaller `rate_scale`.
    """

    what: str
    messages: float = 0.0
    byte: float = 0.0
    scaled: bool = False


def bulk_packet_byte(scenario: Scenario) -> float:
    """How long the packets of bulk are, as the network lets them be at the rate of the fastest laser."""
    longest_byte = scenario.rate_scale * scenario.fastest_laser_bit_s * GSO_TIME_NS / (8 * NS_PER_S)
    return min(max(longest_byte, MTU_BYTE), GSO_MOST_BYTE)


def files_named(words: Sequence[str]) -> tuple[Path, ...]:
    """The files that a command names by whole paths, and its program; what there is not is for the run to tell.

    One of the machine's programs goes before one of the same name in somebody's home, such as a version manager's.
    """
    program = shutil.which(words[0])
    if program and "/" not in words[0] and not everybody_may_read(Path(program)):
        program = shutil.which(words[0], path=os.defpath) or program
    found = [program, *words[1:]]
    paths = [Path(word) for word in found if word is not None]
    return tuple(path for path in paths if path.is_absolute() and os.path.isfile(path))


def as_warning(check: Callable[..., object], *arguments: object) -> str | None:
    """What a check says of this machine, for which the scenario is not to blame."""
    try:
        check(*arguments)
    except IslEmuError as error:
        return str(error)
    return None


Event = dict[str, Any]
"""Something that happened in a run, for who looks on: `t_s`, `type`, and what docs/stream.md says of that type."""


def transfer_events(
    kind: str, name: str, ends: tuple[str, str], times_ns: tuple[int | None, int | None], path: Sequence[str] | None
) -> Iterator[Event]:
    """That something went from one node to another.

    Args:
        name: of this one, among all of its kind.
        times_ns: when it began and ended; None where it did not.
        path: None for the planned one.
    """
    for phase, t_ns in zip(("begun", "ended"), times_ns):
        if t_ns is not None:
            way = {"id": f"{kind} {name}", "kind": kind, "from": ends[0], "to": ends[1], "path": path, "phase": phase}
            yield {"t_s": t_ns / NS_PER_S, "type": "transfer", **way}


class Crossing(NamedTuple):
    """A packet from one node to another, as far as somebody knows of it.

    Args:
        t_send_ns: None if not known.
        t_arrival_ns: None if it was lost.
    """

    a: str
    b: str
    t_send_ns: int | None
    t_arrival_ns: int | None


EVERY_NODE_UP_TO = 300  # nodes with routes to all; 90,000 next hops, which a machine computes in some ms an instant

Pace = Callable[[str, int, int], float]
"""Which share of its full pace a satellite's computer was allowed between two times: (satellite, from_ns, to_ns)."""


def _nothing(folder: RunFolder, steps: Steps) -> None:
    """Leave nothing."""


@dataclass(frozen=True)
class Preparation:
    """What a part has found out before a run, and leaves in the run folder for its live processes.

    Args:
        models: the files of weights that its programs read; `inputs` what else was read.
        seen: folders that its processes outside containers must see, such as that of a user's function.
        leave: writes what its processes need, once there is a run folder.
    """

    models: tuple[Path, ...] = ()
    inputs: tuple[Path, ...] = ()
    seen: tuple[Path, ...] = ()
    leave: Callable[[RunFolder, Steps], None] = _nothing


Wire = Callable[[RunFolder, RunDirectory], AbstractContextManager[int]]
"""While its block lasts, something on the machine sends and takes Ethernet frames: the guest's end, a descriptor."""


class Asked(Protocol):
    """Who asks a live run from a second terminal: where the answer goes, and whether anybody waits for it."""

    @property
    def output(self) -> BinaryIO:
        """What the answer prints."""

    @property
    def errors(self) -> BinaryIO:
        """What it prints as errors."""

    @property
    def cancelled(self) -> Callable[[], bool]:
        """Whether nobody waits any more."""


class CpuUse(Protocol):
    """When satellites computed in a run, and with how many of the machine's CPUs: that is no distortion."""

    @property
    def spans(self) -> Sequence[tuple[int, int]]:
        """From when to when single pieces of work went on, which last too long if there are too few CPUs."""

    def mean_cpus(self, from_ns: int, to_ns: int) -> float:
        """The mean number of CPUs that it may have taken between two times."""


@dataclass(frozen=True)
class Judgement:
    """What a part knows of how true a run was.

    Args:
        figures: records of figures, each by its name in fidelity.json.
        reasons: why the run is invalid.
        machine: lines of the summary's section on the machine, each as its subject and what is said of it.
    """

    figures: Mapping[str, Any] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()
    machine: tuple[tuple[str, str], ...] = ()


class Part:
    """One kind of thing that a run can carry; the defaults do nothing.

    Attributes:
        key: its name, that of its folder.
        lines: tables whose rows are the lines of the journal of the same name, where a run has such a journal.
        orders: columns by which the rows of such a table are in order, nodes as the plan has them; without any it is
            that of the lines. Where several write at the same time, and in several guests, which line comes first is
            chance.
        tables: tables that `conclude` makes.
        merges: how its journals of several guests become one, by their names.
        watched: tables of whose rows it tells who looks on; `watched_live` journals, while the run is live.
    """

    key: ClassVar[str]
    lines: ClassVar[Mapping[str, pa.Schema]] = {}
    orders: ClassVar[Mapping[str, Sequence[str]]] = {}
    tables: ClassVar[Mapping[str, pa.Schema]] = {}
    merges: ClassVar[Mapping[str, Callable[[Sequence[Records]], Records]]] = {}
    watched: ClassVar[Sequence[str]] = ()
    watched_live: ClassVar[Sequence[str]] = ()

    # planning

    def endpoints(self, scenario: Scenario, plan: LinkPlan) -> Iterable[str]:
        """Names of the nodes that its packets go to: in a large network only these have routes towards them."""
        return ()

    def needs(self, scenario: Scenario) -> Iterable[Need]:
        """What its programs in satellites' containers need.

        Raises:
            WorkloadError: a file that one of them needs cannot be used.
        """
        return ()

    def own_byte(self, scenario: Scenario) -> int:
        """The memory that its processes beside the containers take."""
        return 0

    def real_time(self, scenario: Scenario) -> Iterable[str]:
        """Why it needs real time: in exact time computing takes none, so nothing may depend on how long it takes."""
        return ()

    def together(self, scenario: Scenario) -> Iterable[Sequence[str]]:
        """Groups of nodes, each on one kernel of a run that several guests share: one process is in all of a group."""
        return ()

    def one_guest(self, source: Source) -> Iterable[str]:
        """Why its run cannot be spread over several guests: it has something that must be on one kernel.

        Each part says so itself, if only that nothing is: one that does not is in no run that is spread.
        """
        yield f"of {self.key} nobody knows whether it can be on several kernels"

    def flows(self, source: Source) -> Iterable[Flow]:
        """What it is expected to send from where to where, by which a run is cut: no more than that can be spread."""
        return ()

    def checks(self, scenario: Scenario) -> Iterable[Callable[[], object]]:
        """What can be known of the files, functions and programs that it names, without a plan: one call for each.

        A call raises an IslEmuError if the thing cannot be used; text that it returns is a warning, a tuple several.
        """
        return ()

    def traffic(self, scenario: Scenario) -> Iterable[Traffic]:
        """What it sends, which in exact time costs the machine's time; what nobody knows beforehand is left out."""
        return ()

    def prepare(self, source: Source, place: str) -> Preparation:
        """Find out before anything is built whether it can be done, and what its processes need to know.

        Args:
            place: where the network is built, "host" or "guest".

        Raises:
            IslEmuError: it cannot be done here.
        """
        return Preparation()

    def wires(self, scenario: Scenario) -> Iterable[Wire]:
        """What a guest kernel in real time is to have of the machine as network devices; it finds them in this order.

        Each is named vec0, vec1 and so on, over all parts.
        """
        return ()

    # the live run

    def start(self, live: LiveRun) -> Iterable[Activity]:
        """Start what must be ready before instant 0, and what goes on from then on."""
        return ()

    def progress(self, *journals: Path) -> str | None:
        """How far it is, in a few words, while the run is live, by the journals of its guests; asked twice a second."""
        return None

    def status(self, *journals: Path) -> Iterable[str]:
        """Its lines in `isl-emu status`."""
        return ()

    def answers(self, live: LiveRun, times: RunTimes) -> Mapping[str, Callable[[Mapping[str, Any], Asked], int]]:
        """What it answers from a second terminal, by the verb of a request; each call is in a thread of its own."""
        return {}

    # the results

    def gather(self, guests: Sequence[RunFolder]) -> None:
        """Make one of the files that several guests have left; `merges` and their order make one of their journals.

        Args:
            guests: the run's folder with the journal of each; what is made goes to that of the first.
        """

    def conclude(self, run: FinishedRun) -> None:
        """Write its tables, and what else it leaves in the run folder."""

    def pace(self, run: FinishedRun) -> Pace | None:
        """What it left of the pace of satellites' computers; None if it did not limit any."""
        return None

    def cpu_use(self, run: FinishedRun, pace: Pace) -> Iterable[CpuUse]:
        """When its programs computed, by its tables."""
        return ()

    def judge(self, run: FinishedRun, pace: Pace) -> Judgement:
        """What it knows of how true the run was, by its tables."""
        return Judgement()

    def sections(self, run: FinishedRun, figures: Mapping[str, Any]) -> Iterator[Iterable[str]]:
        """Its sections of the summary, each as lines that begin with a title.

        Args:
            figures: of all parts' judgements.
        """
        yield from ()

    def chapters(self, run: ConcludedRun) -> Iterator[Chapter]:
        """Its chapters of the report, by its tables; text that others wrote is escaped where the report is made."""
        yield from ()

    def ways(self, run: ConcludedRun) -> Iterable[Sequence[str]]:
        """The ways that its packets took by its tables, each as node names; the report's map shows their links."""
        return ()

    def crossings(self, run: ConcludedRun) -> Iterable[Crossing]:
        """The packets that its tables know one by one: what a change of their path cost is told by them."""
        return ()

    # for who looks on

    def events(self, table: str, row: Mapping[str, Any]) -> Iterable[Event]:
        """What a row of one of its tables says to who looks on; where a path is None, the planned one is filled in."""
        return ()

    def live_events(self, journal: str, record: Mapping[str, Any]) -> Iterable[Event]:
        """The same of a line of a journal, while the run is live."""
        return self.events(journal, record)


Share = Callable[[str, int, int], float]
"""A part of the whole that a satellite has between two times: (satellite, from_ns, to_ns) -> 0..1."""


class Spells:
    """Spells of computing, each with the share of a CPU that it may have taken.

    Args:
        spells: from when, to when, and with how many CPUs.
        watched: whether each is a piece of work that lasts too long if there are too few CPUs.
    """

    def __init__(self, spells: Iterable[tuple[int, int, float]], watched: bool = False):
        rows = list(spells)
        self.spans: Sequence[tuple[int, int]] = [(begin, end) for begin, end, _ in rows] if watched else ()
        self._begin_ns, self._end_ns, self._cpus = np.array(rows, dtype=np.float64).reshape(-1, 3).T

    def mean_cpus(self, from_ns: int, to_ns: int) -> float:
        """The mean number of CPUs between two times."""
        overlap_ns = np.minimum(self._end_ns, to_ns) - np.maximum(self._begin_ns, from_ns)
        return float((np.clip(overlap_ns, 0.0, None) * self._cpus).sum()) / (to_ns - from_ns)


def shares_of_a_cpu(cpus: Mapping[str, float], pace: Share, slowdown: float) -> Share:
    """The CPU that a satellite's only thread may take.

    In slow motion it gets less, for longer, and so does one that is short of energy, or too hot.

    Args:
        cpus: what each satellite's thread has at the scenario's own pace; none for others.
        pace: what it was allowed of that.
    """

    def share(satellite: str, from_ns: int, to_ns: int) -> float:
        return min(cpus.get(satellite, 0.0) * pace(satellite, from_ns, to_ns) / slowdown, 1.0)

    return share
