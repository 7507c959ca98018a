"""isl-emu from Python: load a scenario, plan its sky, and ask the plan. The command line uses nothing else.

import isl_emu

scenario = isl_emu.load("topologies/three-body.toml")
plan = isl_emu.plan(scenario, duration_s=600, step_s=1)
plan.path_delay_ns("gs-miyun", "p00s06")      # one way, int64, masked where unreachable, shape (K,)
plan.contacts.to_pandas()                     # labelled tables (Arrow)
plan.save("three-body.plan.parquet")
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from isl_emu.errors import ScenarioError
from isl_emu.export.formats import export_text
from isl_emu.linkplan import plan_file
from isl_emu.linkplan.plan_file import Told
from isl_emu.machine.functions import trusting
from isl_emu.planned import NamedPath, PlannedNetwork, open_planned, plan_network, read_planned, scenario_warnings
from isl_emu.scenario.model import Scenario
from isl_emu.scenario.parse import format_scenario, load_scenario
from isl_emu.show.text import summary
from isl_emu.units import NS_PER_S, is_finite

__all__ = ["NamedPath", "Plan", "Scenario", "format_scenario", "load", "plan", "read_plan", "scenario_warnings"]


class Plan(PlannedNetwork):
    """The link plan of a scenario, and all that can be made of it: a file, text in other formats, and pictures."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What to check before trusting the plan, or running it; one sentence each."""
        from isl_emu.live.room import exact_time_warnings  # which knows all parts; a plan as such needs none

        return (*super().warnings, *exact_time_warnings(self.scenario))

    def save(
        self, path: str | os.PathLike[str], told: Callable[[float, str], object] = lambda done, detail: None
    ) -> None:
        """Write the plan as one Parquet file, which `read_plan`, `isl-emu run` and other tools read.

        Args:
            path: of the file.
            told: is told how much is written, 0 to 1, and in words.

        Raises:
            ScenarioError: it cannot be written there.
        """
        try:
            plan_file.write_plan(self.link_plan, Path(path), told, self.step_check)
        except OSError as error:
            reason = error.strerror or str(error)
            raise ScenarioError(
                f"{path}: cannot be written ({reason}), but the plan goes there; name another file"
            ) from None

    def export(self, name: str) -> str:
        """The plan as text in another format: "csv", "ion", "ud3tn" or "czml"; equal plans give equal text.

        Raises:
            ScenarioError: there is no such format.
        """
        return export_text(self.link_plan, self.scenario, name)

    def summary(self) -> str:
        """Nodes, links, ground contacts and what the time step does, as text."""
        return summary(self)

    def draw(
        self,
        folder: str | os.PathLike[str],
        pairs: Sequence[tuple[str, str]] = (),
        links: Sequence[tuple[str, str]] = (),
        formats: Sequence[str] = ("png",),
    ) -> list[Path]:
        """Write pictures: contacts, map, ranges and rates of links, degree, and delays of paths.

        Args:
            folder: made if need be.
            pairs: of nodes, for the path delay; some that tell most if empty.
            links: by the names of their ends, for range and rate; some that tell most if empty.
            formats: "png", "svg", "pdf": each picture in all of them.

        Returns:
            The files.

        Raises:
            ScenarioError: a node or link that is not in the plan, a format that is none, or a folder that cannot be
                written.
        """
        from isl_emu.show.draw import draw  # matplotlib is slow to import, and few plans are drawn

        return draw(self, Path(folder), pairs, links, formats)

    def film(
        self, path: str | os.PathLike[str], told: Callable[[float, str], object] = lambda done, detail: None
    ) -> Path:
        """Write a film of the map over all of the plan's time, ten seconds long at most.

        Args:
            path: of a GIF, or of an MP4 where there is ffmpeg.
            told: is told how much is drawn, 0 to 1, and in words.

        Raises:
            ScenarioError: another suffix, or a file that cannot be written.
            MachineError: MP4 without ffmpeg.
        """
        from isl_emu.show.animation import animate

        return animate(self, Path(path), told)


def load(path: str | os.PathLike[str]) -> Scenario:
    """The scenario in a TOML file.

    Raises:
        ScenarioError: the file cannot be read, is no TOML, or breaks a rule; all problems at once.
    """
    return load_scenario(Path(path))


def plan(
    scenario: Scenario | str | os.PathLike[str],
    *,
    start: datetime | str | None = None,
    duration_s: float | None = None,
    step_s: float | None = None,
    seed: int | None = None,
    trust: bool = False,
) -> Plan:
    """The link plan of a scenario; equal scenarios give equal plans, byte for byte.

    Args:
        scenario: from `load`, or the path of one.
        start: UTC, instead of what the scenario says; text as in ISO 8601 (``2026-03-20T14:00:00Z``). Of several
            elements of one satellite in a file those nearest to it are taken.
        duration_s: instead of what the scenario says.
        step_s: instead of what the scenario says.
        seed: of all random choices, instead of what the scenario says.
        trust: whether the scenario's own functions are called without a wall; see docs/trust.md.

    Raises:
        ScenarioError: a time that cannot be, or an orbit that does not exist or does not hold; another start than that
            for which a `Scenario` was loaded, if elements in its files were chosen by it.
    """
    time = {"start": _utc(start), "duration": _text("duration_s", duration_s), "step": _text("step_s", step_s)}
    given = {key: value for key, value in time.items() if value is not None}
    loaded = scenario if isinstance(scenario, Scenario) else load_scenario(Path(scenario), _utc(start))
    with trusting(trust):
        return _with_all(plan_network(loaded, {"time": given, **({} if seed is None else {"seed": seed})}))


def read_plan(path: str | os.PathLike[str]) -> Plan:
    """The plan that `Plan.save` or `isl-emu plan` wrote.

    Raises:
        ScenarioError: there is no such file, it is not a link plan of this format, or it was altered.
    """
    return _with_all(read_planned(Path(path)))


def open_plan(path: Path | Scenario, changes: dict[str, Any], told: Told = lambda done, detail: None) -> Plan:
    """The plan in a file, or the plan made from the scenario in it; a saved plan's sky cannot be changed.

    Args:
        path: of the file, or a scenario that was read already.
        changes: top-level scenario fields to replace, as in TOML.
        told: is told how much is planned, 0 to 1, and in words.
    """
    return _with_all(open_planned(path, changes, told))


def _with_all(planned: PlannedNetwork) -> Plan:
    return Plan(planned.link_plan, planned.scenario)


def _utc(start: datetime | str | None) -> datetime | None:
    if not isinstance(start, str):
        return start
    try:
        return datetime.fromisoformat(start.replace("Z", "+00:00"))
    except ValueError:
        raise ScenarioError(
            f"start: is {start!r}, but a time is written as in ISO 8601; write for example 2026-03-20T14:00:00Z"
        ) from None


def _text(name: str, seconds: float | None) -> str | None:
    if seconds is None:
        return None
    if not is_finite(seconds):
        raise ScenarioError(f"{name}: is {seconds!r}, but it is a number of seconds; give one, such as 60")
    return f"{round(float(seconds) * NS_PER_S)} ns"
