"""A user's own traffic: programs that run in nodes, and workloads written in Python."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from isl_emu.errors import WorkloadError
from isl_emu.linkplan.plan import LinkPlan
from isl_emu.parts.activity import Activity, Service
from isl_emu.parts.finished_run import ConcludedRun, FinishedRun
from isl_emu.parts.live_run import LiveRun
from isl_emu.parts.part import CpuUse, Need, Pace, Part, Preparation, Source, Spells, files_named
from isl_emu.parts.programs.computing import write_nodes
from isl_emu.parts.programs.cpu_meter import JOURNAL as CPU_JOURNAL
from isl_emu.parts.programs.cpu_meter import CpuMeter
from isl_emu.parts.programs.occasions import occasions
from isl_emu.parts.programs.programs import JOURNAL, LOGS, STARTS_JOURNAL, Programs, WorkloadProcess, found_here
from isl_emu.parts.programs.results import PROGRAM_CPU, PROGRAMS, programs_chapter, programs_section
from isl_emu.parts.programs.user_workload import JOURNAL_PREFIX, journal_of
from isl_emu.parts.serving.modelled_state import PROGRAMS as PROGRAMS_STATE
from isl_emu.parts.serving.modelled_state import ModelledState
from isl_emu.runs.journal import count_all, count_lines
from isl_emu.scenario.model import Scenario
from isl_emu.scenario.programs import MIB, Program, UserWorkload
from isl_emu.scenario.user_functions import planning_function
from isl_emu.show.chapter import Chapter
from isl_emu.tables.schema import LOST_LINES

PROGRAM_BYTE = 32 * MIB  # expected of a program of which nothing is known
WORKLOAD_BYTE = 128 * MIB  # Python, numpy and the scenario: measured 48 MB; the rest is for what the function does


STATE_IT = 'add cpu_time = "stated" if it says by isl_emu.compute how long it computes'


class ProgramsPart(Part):
    key = "programs"
    lines = {JOURNAL: PROGRAMS, CPU_JOURNAL: PROGRAM_CPU}
    orders = {JOURNAL: ("t_end_ns", "node", "name", "t_due_ns"), CPU_JOURNAL: ("t_ns", "node")}

    def endpoints(self, scenario: Scenario, plan: LinkPlan) -> Iterable[str]:
        return scenario.visited_nodes

    def real_time(self, scenario: Scenario) -> Iterable[str]:
        own: tuple[Program | UserWorkload, ...] = (*scenario.program, *scenario.workload)
        for one in own:
            if one.cpu_time is None and one.cpus is not None:
                yield f"{one.name} is given a share of a core, but what it computes would take no time; {STATE_IT}"
            elif one.cpu_time is None and scenario.power:
                yield f"power counts what {one.name} computes, which would take no time; {STATE_IT}"

    def needs(self, scenario: Scenario) -> Iterable[Need]:
        """Programs and workloads see the folder in which isl-emu was called, and where Python finds modules."""
        for program in scenario.program:
            expected_byte = min(program.memory_byte, PROGRAM_BYTE)
            named = () if scenario.image_of(program.node) else files_named(found_here(program.command))
            visible = (*_seen_here(), *named)
            yield Need(program.node, program.cpus or 0.0, program.memory_byte, expected_byte, visible)
        for workload in scenario.workload:
            for place, node in enumerate(dict.fromkeys(workload.nodes)):  # the process itself is in the first one
                expected_byte = min(workload.memory_byte, PROGRAM_BYTE if place else WORKLOAD_BYTE)
                yield Need(node, workload.cpus or 0.0, workload.memory_byte, expected_byte, _seen_here())

    def checks(self, scenario: Scenario) -> Iterable[Callable[[], object]]:
        yield from (partial(_imported, workload) for workload in scenario.workload)
        ours = [program for program in scenario.program if not (program.may_fail or scenario.image_of(program.node))]
        yield from (partial(_check_command, program) for program in ours)

    def prepare(self, source: Source, place: str) -> Preparation:
        for program in source.scenario.program:
            occasions(program, source.scenario, source.plan)  # so that an error comes now
        for workload in source.scenario.workload:
            _imported(workload)  # so that an error comes now
        return Preparation()

    def one_guest(self, source: Source) -> Iterable[str]:
        return ()

    def together(self, scenario: Scenario) -> Iterable[Sequence[str]]:
        """A workload's function is one process in all of its nodes."""
        return (workload.nodes for workload in scenario.workload)

    def start(self, live: LiveRun) -> Iterable[Activity]:
        own, nodes = set[int](), [*filter(live.is_here, dict.fromkeys(live.scenario.visited_nodes))]
        if not nodes:
            return
        (live.folder.path / LOGS).mkdir(exist_ok=True)
        if live.exact:
            journal = live.folder.journal
            ModelledState.create(journal / PROGRAMS_STATE, nodes)
            write_nodes(live, nodes)
            words = ["isl_emu.parts.programs.computing", "--journal", str(journal)]
            yield Service("computing", words, journal, live.undo)
        if here := [workload for workload in live.scenario.workload if workload.nodes[0] in nodes]:
            with live.phase("workloads", f"starting {', '.join(workload.name for workload in here)}"):
                workloads = [WorkloadProcess(live, workload, own) for workload in here]
                for process in workloads:
                    process.await_ready()
            yield from workloads
        if programs := [program for program in live.scenario.program if program.node in nodes]:
            yield Programs(live, programs, own)
        yield CpuMeter(live, {node: live.containers[node] for node in nodes}, own)

    def status(self, *journals: Path) -> Iterable[str]:
        if any((journal / STARTS_JOURNAL).exists() for journal in journals):
            started, ended = count_all(journals, STARTS_JOURNAL), count_all(journals, f"{JOURNAL}.jsonl")
            yield f"programs: {max(started - ended, 0)} running, {ended} ended"
        for path in sorted(path for journal in journals for path in journal.glob(f"{JOURNAL_PREFIX}*.jsonl")):
            yield f"workload {path.stem.removeprefix(JOURNAL_PREFIX)}: {count_lines(path)} rows recorded"

    def conclude(self, run: FinishedRun) -> None:
        """A table for each workload, with the columns that its rows have; none if it recorded nothing."""
        for workload in run.scenario.workload:
            own = run.journal(journal_of(workload.name))
            if own.records:
                names = dict.fromkeys(column for record in own.records for column in record)
                table = pa.table({name: pa.array([record.get(name) for record in own.records]) for name in names})
                table = table.replace_schema_metadata({LOST_LINES: str(own.lost_lines)})
                pq.write_table(table, run.folder.table(workload.name), compression="zstd")

    def cpu_use(self, run: FinishedRun, pace: Pace) -> Iterable[CpuUse]:
        """As it was measured, whatever it was that they did."""
        slowdown = run.scenario.time.slowdown
        yield Spells(
            (row["t_ns"] - row["interval_ns"], row["t_ns"], row["cpu_ns"] / (row["interval_ns"] * slowdown))
            for row in run.rows(CPU_JOURNAL)
        )

    def sections(self, run: FinishedRun, figures: Mapping[str, Any]) -> Iterator[Iterable[str]]:
        if run.scenario.program or run.scenario.workload:
            yield programs_section(run.scenario.program, run.rows("programs"), _recorded(run))

    def chapters(self, run: ConcludedRun) -> Iterator[Chapter]:
        return programs_chapter(run.scenario.program, run.rows("programs"), _recorded(run))


def _recorded(run: ConcludedRun) -> dict[str, int]:
    """How many rows each workload has recorded."""
    return {workload.name: len(run.rows(workload.name)) for workload in run.scenario.workload}


def _imported(workload: UserWorkload) -> Callable[..., Any]:
    return planning_function(workload.function, f"workload {workload.name}: function", 1)


def _check_command(program: Program) -> None:
    """Refuse a program that is not there; one that is named relative to its node's files may come to be in the run.

    Raises:
        WorkloadError: there is none.
    """
    word = found_here(program.command)[0]
    if ("/" not in word or Path(word).is_absolute()) and shutil.which(word) is None:
        raise WorkloadError(
            f"program {program.name}: command is {word!r}, but there is no such program; install it, give its whole "
            "path, or set may_fail = true"
        )


def _seen_here() -> tuple[Path, ...]:
    return (Path.cwd(), *(Path(entry) for entry in sys.path if entry and Path(entry).is_dir()))
