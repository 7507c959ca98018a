"""A run spread over several guest kernels on one virtual clock: which node is where, and what each guest is left."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from isl_emu.errors import ScenarioError
from isl_emu.files import write_json
from isl_emu.machine.place import Place
from isl_emu.partition.cut import Cut, cut
from isl_emu.partition.load import load_of
from isl_emu.parts.part import Source
from isl_emu.parts.registry import PARTS
from isl_emu.runs.folder import RunFolder
from isl_emu.runs.portion import FILE, Portion
from isl_emu.runs.wishes import Wishes
from isl_emu.units import NS_PER_S

MOST_GUESTS = 64  # a guest has so many trunks, and the calendar: kernel/patches/8-trunks.patch


@dataclass(frozen=True)
class Spread:
    """How a run is spread.

    Args:
        portion: its first part, and with it the part of each node.
        lookahead_ns: no packet takes less from one guest to another.
        told: what is told of the cut, as a JSON object.
    """

    portion: Portion
    lookahead_ns: int
    told: Mapping[str, Any]


def spread_over(source: Source, guests: int, place: Place, wishes: Wishes) -> Spread | None:
    """How a run is spread over some guests; None if there is one.

    Raises:
        ScenarioError: it cannot be spread, or not over so many.
        MachineError: what cuts it is not installed.
    """
    if guests == 1:
        return None
    for wrong, reason in (
        (
            place.clock != "exact",
            f"guests share a clock only in exact time, and this run takes real time ({place.reason})",
        ),
        (wishes.interactive, "--cli has one kernel's nodes"),
        *((True, reason) for reason in not_spread(source)),
    ):
        if wrong:
            raise ScenarioError(f"--guests: is {guests}, but {reason}; leave --guests out")
    found = cut_of(source, guests)
    longest_ns = NS_PER_S  # all meet once a slice anyway
    return Spread(Portion(0, found.part), min(found.lookahead_ns or longest_ns, longest_ns), found.to_json(source.plan))


def cut_of(source: Source, parts: int) -> Cut:
    """A run cut by what all that it carries is expected to take.

    Raises:
        ScenarioError: it cannot be cut into so many parts.
        MachineError: what cuts it is not installed.
    """
    flows = [flow for part in PARTS for flow in part.flows(source)]
    together = [group for part in PARTS for group in part.together(source.scenario)]
    load = load_of(source.plan, source.routes, flows)
    return cut(source.plan, parts, load=load, together=together, seed=source.scenario.seed)


def not_spread(source: Source) -> list[str]:
    """Why what a run carries cannot be spread over several guests; empty if it can."""
    return [reason for part in PARTS for reason in part.one_guest(source)]


def leave_parts(folder: RunFolder, spread: Spread) -> None:
    """Leave every guest the cut, with the part of each node in it, and a journal with all that was prepared."""
    write_json(folder.path / FILE, spread.told)
    for number in range(1, spread.portion.count):
        shutil.copytree(folder.journal, RunFolder(folder.path, number).journal, copy_function=os.link)
