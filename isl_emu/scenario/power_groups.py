"""Which satellites have power of which kind, and what a scenario must say so that every computer's demand is known."""

from __future__ import annotations

from collections.abc import Iterator

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
    """The board of each satellite that has one: that of its `[compute]` group, else that of its `[[power]]` group."""
    groups = [group for group in (*scenario.power, *scenario.compute) if group.board]
    names = scenario.satellite_names
    return {name: BOARDS[group.board] for group in groups for name in matching(group.satellites, names)}


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


def _without_board(scenario: Scenario) -> Iterator[str]:
    """Groups that compute with power of a satellite whose computer's demand nobody knows."""
    groups = power_of_satellites(scenario).items()
    powered = {name: f"power[{index}]" for name, index in groups if scenario.power[index].board is None}
    for index, group in enumerate(scenario.compute):
        names = matching(group.satellites, scenario.satellite_names)
        if group.board is None and (name := next((name for name in names if name in powered), None)):
            where = f"compute[{index}]" if len(scenario.compute) > 1 else "compute"
            yield (
                f"{where}.board is missing, but {powered[name]} has {name!r}, whose computer's power follows from "
                f"its board; name one"
            )
