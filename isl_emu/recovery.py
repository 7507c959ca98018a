"""After a run that was killed: what it left in the kernel is removed, and what it wrote down becomes results.

In the kernel only what carries a run's id is touched.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from contextlib import suppress
from glob import glob
from pathlib import Path

import pyarrow as pa

from isl_emu.errors import MachineError, ScenarioError
from isl_emu.files import read_json
from isl_emu.linkplan.plan_file import read_plan
from isl_emu.live.control import POINTER
from isl_emu.machine.guest import clean_guest, guests_at_large
from isl_emu.machine.uml import inside_guest
from isl_emu.network.borrowed import give_back
from isl_emu.nodes.cgroups import remove_run_cgroups
from isl_emu.nodes.mounts import mount_points, unmount
from isl_emu.nodes.nodespaces import namespace_path, remove_space_file
from isl_emu.nodes.processes import kill_processes_in, namespace_ids
from isl_emu.results.conclude import conclude
from isl_emu.results.gather import gather
from isl_emu.results.provenance import file_facts
from isl_emu.routing.forwarding import read_routes
from isl_emu.runs.directory import RUN_ID, RunDirectory, registered_runs, unowned_runs
from isl_emu.runs.folder import RunFolder
from isl_emu.runs.portion import Portion
from isl_emu.scenario.parse import load_scenario


def clean_up() -> list[str]:
    """Remove what killed runs have left behind; one sentence for each, and one for each whose journals remain.

    A run of which cannot be known whether it is alive is left alone, and told of.
    """
    registered = [*registered_runs(), *([] if inside_guest() else unowned_runs())]
    unknown = [run for run in registered if run.damage]
    abandoned = [run for run in registered if run.owner_pid is None and not run.damage]
    folders = dict.fromkeys(folder for run in abandoned if (folder := _results_of(run)) is not None)
    killed = [
        f"run {run.run_id}: its folder was gone, and {len(clean_guest(run))} processes of its guest are now"
        for run in guests_at_large()
    ]
    for run in abandoned:
        clean_guest(run)
    hints = [f"its journals remain: `isl-emu conclude {folder}` makes results of them" for folder in folders]
    return [*killed, *clean_runs(abandoned), *hints, *(run.damage for run in unknown if run.damage)]


def is_alive(folder: RunFolder) -> bool:
    """Whether the run of a folder is live now."""
    return any(run.owner_pid is not None and _results_of(run) == folder.path.resolve() for run in registered_runs())


def conclude_folder(path: Path) -> RunFolder:
    """Make results of the journals of a run that was killed; may be repeated.

    Raises:
        ScenarioError: the folder has no journals, or its run is still alive.
    """
    folder = RunFolder(path.absolute())
    if not folder.plan.exists() or not folder.journal.is_dir():
        raise ScenarioError(f"{path}: has no journals, but results are made of them; name a killed run's folder")
    if is_alive(folder):
        raise ScenarioError(f"{path}: its run is still alive, but results come after its end; use `isl-emu stop`")
    folder.check_plain()
    plan, record = read_plan(folder.plan), read_json(folder.provenance) or {}
    for file, name, digest in (
        (folder.plan, "plan_sha256", plan.digest()),
        (folder.scenario, "scenario_sha256", file_facts(folder.scenario)["sha256"]),
    ):
        if record.get(name) != digest:
            raise ScenarioError(
                f"{file}: is not the one of this run by its provenance.json, but results belong to what was run; take "
                "the run's own file"
            )
    try:
        with folder.written_or_told():
            if (parts := Portion.read(folder.path, 0, len(plan.nodes.names)).count) > 1 and _is_apart(folder):
                gather(folder, parts)
            conclude(folder, load_scenario(folder.scenario), plan, read_routes(folder.routes, plan))
    except (LookupError, TypeError, ValueError, ArithmeticError, pa.ArrowException) as error:
        raise ScenarioError(
            f"{folder.journal}: has records that are not of this run ({type(error).__name__}: {error}), but tables are "
            "made of them; take its own journals (those that were read before have become tables)"
        ) from error
    return folder


def _is_apart(folder: RunFolder) -> bool:
    """Whether guests that shared a run have left a journal each."""
    return RunFolder(folder.path, 1).journal.is_dir()


def _results_of(run: RunDirectory) -> Path | None:
    """The run folder of a run, if it still has journals."""
    try:
        folder = Path((run.path / POINTER).read_text()).resolve()
        return folder if (folder / "journal").is_dir() else None
    except (OSError, ValueError):  # never written, gone meanwhile, or none of ours
        return None


def clean_runs(runs: Iterable[RunDirectory]) -> list[str]:
    """Remove what is left of those runs whose owner is gone; may be repeated.

    Returns:
        One sentence per run that was removed, or that could not be removed wholly.
    """
    return [_cleaned(run) for run in runs if RUN_ID.fullmatch(run.run_id) and run.owner_pid is None and not run.damage]


def _cleaned(run: RunDirectory) -> str:
    """What became of a run that is cleaned; what the machine refuses keeps no other run from it."""
    try:
        return _clean_run(run)
    except MachineError as error:
        return f"run {run.run_id}: {error}"
    except OSError as error:
        return (
            f"run {run.run_id}: cannot be removed wholly ({error.filename or run.path}: {error.strerror}), but "
            "nothing of it should stay; put that right and try again"
        )


def _clean_run(run: RunDirectory) -> str:
    paths = sorted(glob(namespace_path(run.run_id, "*")))
    groups = remove_run_cgroups(run.run_id)  # first: processes that a pause has frozen die in no other way
    killed = kill_processes_in(namespace_ids(paths))
    given = give_back(run)
    for path in paths:
        remove_space_file(path)
    removed = f"run {run.run_id}: removed {len(paths)} namespaces, {len(killed)} processes, {len(groups)} cgroups"
    if given:
        removed = f"{removed}, gave back {', '.join(given)}"
    for point in sorted(_mounts_below(run.path), reverse=True):  # innermost first
        with suppress(OSError):
            unmount(point)
    if mounted := _mounts_below(run.path):
        return f"{removed}; its folder stays, because {mounted[0]} is still mounted; unmount it and try again"
    shutil.rmtree(run.path, ignore_errors=True)
    return f"{removed} and its folder {run.path}"


def _mounts_below(folder: Path) -> list[Path]:
    mounts = mount_points(Path("/proc/self/mountinfo").read_text())
    return [point for point in mounts if folder.resolve() in (point, *point.parents)]
