"""What is to be shown: a plan, a scenario that is planned first, the folder of a run that is over, or a live run."""

from __future__ import annotations

from pathlib import Path

from isl_emu.linkplan.plan_file import read_plan
from isl_emu.planned import PlannedNetwork, open_planned
from isl_emu.progress import Steps
from isl_emu.results.report import read_concluded
from isl_emu.runs.folder import RunFolder
from isl_emu.scenario.parse import load_scenario
from isl_emu.view.sky import Sky


def open_sky(path: Path, steps: Steps) -> Sky:
    """The sky of a plan's file, of a scenario, or of the folder of a run that is over.

    Raises:
        ScenarioError: it cannot be read, or is none of these.
    """
    if path.is_dir():
        run = read_concluded(path)
        return Sky(PlannedNetwork(run.plan, run.scenario), run.folder, "run")
    with steps.step("planning links"):
        return Sky(open_planned(path, {}))


def open_live(folder: Path, *, buttons: bool) -> Sky:
    """The sky of a run that is live, or about to be.

    Args:
        buttons: whether who looks on may act on it.

    Raises:
        ScenarioError: its plan or its scenario cannot be read.
    """
    run = RunFolder(folder)
    return Sky(PlannedNetwork(read_plan(run.plan), load_scenario(run.scenario)), run, "live", buttons)
