"""A run that is over, as its parts see it: what was planned, what was written down, and the tables made of that."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from isl_emu.linkplan.plan import LinkPlan
from isl_emu.routing.forwarding import RoutePlan
from isl_emu.routing.paths import PathFinder
from isl_emu.runs.execution import Execution
from isl_emu.runs.folder import RunFolder
from isl_emu.runs.journal import INSTANTS_JOURNAL, JournalContent, read_journal
from isl_emu.scenario.model import Scenario
from isl_emu.tables.planned_faults import PlannedFaults
from isl_emu.tables.planned_paths import PlannedPaths
from isl_emu.tables.schema import LOST_LINES, read_table

Row = dict[str, Any]
Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class ConcludedRun:
    """A run whose tables are written: all that is left of one in its folder."""

    folder: RunFolder
    scenario: Scenario
    plan: LinkPlan

    def table(self, name: str) -> pa.Table | None:
        """A table that is written already; None if the run has none of this name."""
        path = self.folder.table(name)
        return read_table(path) if path.exists() else None

    def rows(self, name: str) -> Rows:
        """The rows of a table that is written already; none if the run has no such table."""
        found = self.table(name)
        rows: Rows = () if found is None else found.to_pylist()
        return rows


@dataclass(frozen=True)
class FinishedRun(ConcludedRun):
    """A run that is over, with the journals of which its tables are made.

    Args:
        execution: what its live part wrote down about itself; None if it was killed before it could.
    """

    routes: RoutePlan
    execution: Execution | None

    @cached_property
    def paths(self) -> PlannedPaths:
        """The plan's paths, and when the changes of each instant were in force."""
        done_ns = {record["k"]: record["done_ns"] for record in self.journal(INSTANTS_JOURNAL).records}
        finder = PathFinder(self.plan, self.routes)
        return PlannedPaths(self.plan, finder, done_ns, self.scenario.routing.forwarding)

    @cached_property
    def faults(self) -> PlannedFaults:
        """The plan's faults."""
        return PlannedFaults(self.plan, self.paths)

    @property
    def ended_ns(self) -> int:
        """Where the run ended: with its plan, unless its user wanted it sooner."""
        ended_ns = self.execution.ended_ns if self.execution else None
        return self.plan.grid.duration_ns if ended_ns is None else ended_ns

    @property
    def t0_ns(self) -> int:
        """Instant 0 on the run's clock."""
        t0_ns = self.execution.t0_monotonic_ns if self.execution else None
        return round((t0_ns or 0) / self.scenario.time.slowdown)

    def has_journal(self, name: str) -> bool:
        """Whether anything of this kind was written down."""
        return (self.folder.journal / f"{name}.jsonl").exists()

    def journal(self, name: str) -> JournalContent:
        """A journal's records; none if nothing of its kind happened."""
        return read_journal(self.folder.journal / f"{name}.jsonl")

    def write(self, name: str, schema: pa.Schema, rows: Iterable[Row], lost_lines: int = 0) -> None:
        """Write a table.

        Args:
            lost_lines: of the journal that it was made of.
        """
        self.write_table(name, pa.Table.from_pylist(list(rows), schema=schema), lost_lines)

    def write_table(self, name: str, table: pa.Table, lost_lines: int = 0) -> None:
        """As `write`, of rows that are a table of its schema already."""
        metadata = {**table.schema.metadata, LOST_LINES: str(lost_lines).encode()}
        pq.write_table(table.replace_schema_metadata(metadata), self.folder.table(name), compression="zstd")
