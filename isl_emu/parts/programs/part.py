"""A user's own traffic: programs that run in nodes, and workloads written in Python."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from isl_emu.linkplan.plan import LinkPlan
from isl_emu.parts.activity import Activity, RunProcess
from isl_emu.parts.finished_run import FinishedRun
from isl_emu.parts.live_run import LiveRun
from isl_emu.parts.part import Part, Preparation
from isl_emu.parts.programs.report import programs_section
from isl_emu.parts.programs.run_programs import Programs
from isl_emu.parts.programs.tables import PROGRAMS
from isl_emu.parts.source import Source
from isl_emu.scenario.model import Scenario
from isl_emu.scenario.user_functions import user_function
from isl_emu.tables.schema import LOST_LINES


class ProgramsPart(Part):
    key = "programs"
    lines = {"programs": PROGRAMS}

    def endpoints(self, scenario: Scenario, plan: LinkPlan) -> Iterable[str]:
        return scenario.visited_nodes

    def prepare(self, source: Source, place: str) -> Preparation:
        for workload in source.scenario.workload:
            user_function(workload.function, f"workload {workload.name}: function")  # so that an error comes now
        return Preparation()

    def start(self, live: LiveRun) -> Iterable[Activity]:
        for workload in live.scenario.workload:
            words = ["isl_emu.parts.programs.user_workload", "--folder", str(live.folder.path)]
            yield RunProcess(workload.name, [*words, "--name", workload.name], live.folder.journal)
        if live.scenario.program:
            yield Programs(live)

    def conclude(self, run: FinishedRun) -> None:
        """A table for each workload, with the columns that its rows have; none if it recorded nothing."""
        for workload in run.scenario.workload:
            own = run.journal(workload.name)
            if own.records:
                names = dict.fromkeys(column for record in own.records for column in record)
                table = pa.table({name: pa.array([record.get(name) for record in own.records]) for name in names})
                table = table.replace_schema_metadata({LOST_LINES: str(own.lost_lines)})
                pq.write_table(table, run.folder.table(workload.name), compression="zstd")

    def sections(self, run: FinishedRun, figures: Mapping[str, Any]) -> Iterator[Iterable[str]]:
        if run.scenario.program or run.scenario.workload:
            rows = {workload.name: len(run.rows(workload.name)) for workload in run.scenario.workload}
            yield programs_section(run.rows("programs"), rows)
