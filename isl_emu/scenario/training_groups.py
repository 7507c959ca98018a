"""Which satellites train together, in which planes they are, and whether that fits the scenario."""

from __future__ import annotations

from collections.abc import Iterator

from isl_emu.scenario.matching import matching, unmatched
from isl_emu.scenario.model import Scenario
from isl_emu.scenario.training import Training


def training_satellites(scenario: Scenario, job: Training) -> tuple[str, ...]:
    """The satellites of a job as they are listed; those of one pattern in node order."""
    names = scenario.satellite_names
    patterns = ("*",) if job.satellites == "all" else job.satellites
    return tuple(dict.fromkeys(name for pattern in patterns for name in matching((pattern,), names)))


def modelled_trainers(scenario: Scenario) -> tuple[str, ...]:
    """The satellites that train in some job whose steps are not computed."""
    jobs = [job for job in scenario.training if job.modelled]
    return tuple(dict.fromkeys(name for job in jobs for name in training_satellites(scenario, job)))


def planes_of(scenario: Scenario) -> dict[str, tuple[str, int]]:
    """The plane, as (shell, number), of every satellite that belongs to a pattern."""
    return {
        name: (shell.name, index // shell.walker.slots)
        for shell, names in scenario.satellites_by_shell
        if shell.walker
        for index, name in enumerate(names)
    }


def training_contradictions(scenario: Scenario) -> Iterator[str]:
    """One sentence for each training job that does not fit the constellation, or another one."""
    seen: dict[str, str] = {}
    planes = planes_of(scenario) if scenario.training else {}
    for index, job in enumerate(scenario.training):
        where = f"training[{index}]"
        if problems := list(unmatched(f"{where}.satellites", job.satellites, scenario.satellite_names)):
            yield from problems
            continue
        satellites = training_satellites(scenario, job)
        if len(satellites) < 2:
            yield f"{where}.satellites names {len(satellites)}, but training together needs two; name more"
        yield from _collective_problems(where, job, satellites, planes)
        if job.name in seen.values():
            yield f"{where}.name is {job.name!r}, but an earlier training has that name; rename one"
        for satellite in satellites:
            if satellite in seen:
                yield f"{where}.satellites has {satellite!r}, but {seen[satellite]} trains on it; leave it to one"
        seen.update(dict.fromkeys(satellites, job.name))


def _collective_problems(
    where: str, job: Training, satellites: tuple[str, ...], planes: dict[str, tuple[str, int]]
) -> Iterator[str]:
    if job.collective != "hierarchical":
        return
    strangers = [name for name in satellites if name not in planes]
    if strangers:
        yield f"{where}.collective is hierarchical, but {strangers[0]!r} belongs to no plane; choose ring or tree"
        return
    sizes: dict[tuple[str, int], int] = {}
    for name in satellites:
        sizes[planes[name]] = sizes.get(planes[name], 0) + 1
    if len(set(sizes.values())) > 1:
        found = f"{min(sizes.values())} to {max(sizes.values())} satellites of a plane"
        yield f"{where}.collective is hierarchical with {found}, but it needs equally many; name others, or choose ring"
