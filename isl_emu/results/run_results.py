"""The results of a run, for Python: what lies in a run folder, each file read when it is first asked for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from isl_emu.errors import ScenarioError
from isl_emu.files import read_json, read_whole, why_unread
from isl_emu.runs.folder import RunFolder
from isl_emu.scenario.model import Scenario
from isl_emu.scenario.parse import load_scenario
from isl_emu.tables.schema import read_table


class RunResults:
    """A run folder, read.

    Args:
        path: the folder.

    Raises:
        ScenarioError: it holds no finished run.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self._folder = RunFolder(Path(path).absolute())
        if not self._folder.fidelity.is_file():
            raise ScenarioError(
                f"{path}: holds no results of a finished run, but a folder of results is read; name that of "
                "`--out`, or call `isl-emu conclude`"
            )

    def __repr__(self) -> str:
        return f"<RunResults {self.path}: {'valid' if self.valid else 'INVALID'}>"

    @property
    def path(self) -> Path:
        """The folder."""
        return self._folder.path

    @cached_property
    def scenario(self) -> Scenario:
        """The scenario as it was run."""
        return load_scenario(self._folder.scenario)

    @cached_property
    def fidelity(self) -> dict[str, Any]:
        """The verdict, its reasons and its figures, as in fidelity.json."""
        return read_json(self._folder.fidelity) or {}

    @cached_property
    def serving(self) -> dict[str, Any]:
        """The figures of questions and answers, as in serving.json; empty for a run without questions."""
        return read_json(self.path / "serving.json") or {}

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """What the run was made with, as in provenance.json."""
        return read_json(self._folder.provenance) or {}

    @property
    def valid(self) -> bool:
        """Whether the machine kept up with the plan; do not trust the figures of a run that is not."""
        return self.fidelity.get("verdict") == "valid"

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the run is not valid; empty if it is."""
        return tuple(self.fidelity.get("reasons", ()))

    @property
    def summary(self) -> str:
        """The summary for readers, as text.

        Raises:
            ScenarioError: it is not there any more.
        """
        try:
            return read_whole(self._folder.summary).decode()
        except (OSError, ValueError) as error:
            raise ScenarioError(
                f"{self._folder.summary}: cannot be read ({why_unread(error)}), but every run has one; call `isl-emu "
                "conclude`, or run it again"
            ) from None

    @property
    def tables(self) -> tuple[str, ...]:
        """The names of the tables that this run has."""
        return tuple(path.stem for path in self._folder.tables)

    def report(self, path: str | os.PathLike[str] | None = None) -> Path:
        """Write the report as one HTML file, by default report.html in the folder, and return where it is.

        Raises:
            ScenarioError: a file of the results is not there any more, or the report cannot be written.
        """
        from isl_emu.results.report import read_concluded, write_report  # pictures are slow to import

        return write_report(read_concluded(self.path), None if path is None else Path(path))

    def figures(self, folder: str | os.PathLike[str], formats: Sequence[str] = ("svg", "pdf", "png")) -> list[Path]:
        """Write the report's pictures as files into a folder, in each of the formats, and return them.

        Raises:
            ScenarioError: a format that is none, or the folder cannot be written.
        """
        from isl_emu.results.report import read_concluded, write_figures

        return write_figures(read_concluded(self.path), Path(folder), formats)

    def table(self, name: str) -> pa.Table:
        """One of the tables (Arrow); the unit and meaning of a column are in its field's metadata.

        Raises:
            ScenarioError: this run has no such table, or its file is damaged.
        """
        if name not in self.tables:
            raise ScenarioError(f"table: is {name!r}, but this run has only these: {', '.join(self.tables)}; name one")
        path = self._folder.table(name)
        try:
            return read_table(path)
        except (OSError, pa.ArrowException) as error:
            raise ScenarioError(
                f"{path}: is not readable as Parquet ({error}), but tables are; call `isl-emu conclude`, or run it "
                "again"
            ) from None

    @property
    def requests(self) -> pa.Table:
        """One row for each question."""
        return self.table("requests")

    @property
    def probes(self) -> pa.Table:
        """One row for each probe."""
        return self.table("probes")
