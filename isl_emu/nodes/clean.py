"""Removal of what runs left in the kernel after their process was killed; only what carries a run's id is touched."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from contextlib import suppress
from glob import glob
from pathlib import Path

from isl_emu.nodes.cgroups import remove_run_cgroups
from isl_emu.nodes.mounts import mount_points, unmount
from isl_emu.nodes.nodespaces import namespace_path, remove_space_file
from isl_emu.nodes.processes import kill_processes_in, namespace_ids
from isl_emu.runs.directory import RUN_ID, RunDirectory


def clean_runs(runs: Iterable[RunDirectory]) -> list[str]:
    """Remove what is left of those runs whose owner is gone; may be repeated.

    Returns:
        One sentence per run that was removed, or that could not be removed wholly.
    """
    return [_clean_run(run) for run in runs if RUN_ID.fullmatch(run.run_id) and run.owner_pid is None]


def _clean_run(run: RunDirectory) -> str:
    paths = sorted(glob(namespace_path(run.run_id, "*")))
    groups = remove_run_cgroups(run.run_id)  # first: processes that a pause has frozen die in no other way
    killed = kill_processes_in(namespace_ids(paths))
    for path in paths:
        remove_space_file(path)
    removed = f"run {run.run_id}: removed {len(paths)} namespaces, {len(killed)} processes, {len(groups)} cgroups"
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
