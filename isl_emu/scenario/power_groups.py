"""Which satellites have power of which kind, and what a scenario must say so that every computer's demand is known."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from isl_emu.scenario.boards import BOARDS, Board
from isl_emu.scenario.matching import matching, unmatched
from isl_emu.scenario.model import Scenario

WHOLE = "all with power"  # the part that is all others together


def power_of_satellites(scenario: Scenario) -> dict[str, int]:
    """The number of the `[[power]]` group of each satellite that is in one."""
    names = scenario.satellite_names
    return {name: n for n, group in enumerate(scenario.power) for name in matching(group.satellites, names)}


def power_parts(scenario: Scenario) -> dict[str, set[str]]:
    """The satellites with power in parts of the same orbits and power, by a name for the part, and all of them.

    A part is a shell, or one `[[power]]` group of it where it has several. If there is one part only, it is all.
    """
    group_of, parts = power_of_satellites(scenario), {}
    for shell, names in scenario.satellites_by_shell:
        groups = sorted({group_of[name] for name in names if name in group_of})
        for group in groups:
            label = shell.name if len(groups) == 1 else f"{shell.name}, power[{group}]"
            parts[label] = {name for name in names if group_of.get(name) == group}
    return {**(parts if len(parts) > 1 else {}), WHOLE: set(group_of)}


def satellite_boards(scenario: Scenario) -> dict[str, Board]:
    """The board of each satellite that has one: of its `[compute]` group, else its training, else its `[[power]]`."""
    named = [
        *((group.satellites, group.board) for group in scenario.power),
        *((job.satellites, job.modelled.board) for job in scenario.training if job.modelled),
        *((group.satellites, group.board) for group in scenario.compute),
    ]
    names = scenario.satellite_names
    return {name: BOARDS[board] for satellites, board in named if board for name in matching(satellites, names)}


def power_contradictions(scenario: Scenario) -> Iterator[str]:
    """Problems of `[[power]]` that only show beside satellites and `[compute]`."""
    taken: dict[str, str] = {}
    for index, group in enumerate(scenario.power):
        where = f"power[{index}].satellites"
        yield from unmatched(where, group.satellites, scenario.satellite_names)
        for name in matching(group.satellites, scenario.satellite_names):
            if name in taken:
                yield f"{where} has {name!r}, but {taken[name]} has it too; a satellite has one panel and battery"
            taken.setdefault(name, where)
    yield from _without_board(scenario)
    yield from _unmeasured(scenario)


def _without_board(scenario: Scenario) -> Iterator[str]:
    """Whoever computes with power of a satellite although nobody knows what its computer draws."""
    power, boards, names = power_of_satellites(scenario), satellite_boards(scenario), scenario.satellite_names
    for where, satellites in _computing(scenario):
        computing = matching(satellites, names)
        if name := next((name for name in computing if name in power and name not in boards), None):
            yield (
                f"{where}.board is missing, but power[{power[name]}] has {name!r}, whose computer's power follows from "
                f"its board; name one there, or in the power group"
            )


def _computing(scenario: Scenario) -> Iterator[tuple[str, Any]]:
    """Everything that computes on satellites, each with where it stands and its list of satellites."""
    for index, group in enumerate(scenario.compute):
        yield f"compute[{index}]" if len(scenario.compute) > 1 else "compute", group.satellites
    for index, job in enumerate(scenario.training):
        yield f"training[{index}]", job.satellites
    for index, split in enumerate(scenario.split):
        yield f"split[{index}]", split.satellites


def _unmeasured(scenario: Scenario) -> Iterator[str]:
    """Servers elsewhere that stand for a computer with power: nobody can slow them, or say what they do."""
    power = power_of_satellites(scenario)
    for index, group in enumerate(scenario.compute):
        named = [name for name in matching(group.satellites, scenario.satellite_names) if name in power]
        if group.url is not None and named:
            yield (
                f"compute[{index}].url is set, but power[{power[named[0]]}] has {named[0]!r}, and a server elsewhere "
                f"cannot be slowed; leave the satellite out of one of them"
            )
