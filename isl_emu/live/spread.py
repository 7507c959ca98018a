"""A run spread over several guest kernels on one virtual clock: which node is where, and what each guest is left."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from isl_emu.errors import ScenarioError
from isl_emu.linkplan.plan import LinkKind, LinkPlan
from isl_emu.machine.place import Place
from isl_emu.partition.cut import LEAST_LOOKAHEAD_NS, NO_LINK, cut, least_delays_ns
from isl_emu.parts.part import Source
from isl_emu.parts.registry import PARTS
from isl_emu.runs.folder import RunFolder
from isl_emu.runs.portion import Portion
from isl_emu.runs.wishes import Wishes
from isl_emu.units import NS_PER_MS


@dataclass(frozen=True)
class Spread:
    """How a run is spread.

    Args:
        portion: its first part, and with it the part of each node.
        lookahead_ns: no packet takes less from one guest to another.
    """

    portion: Portion
    lookahead_ns: int


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
        (wishes.pause_at_ns is not None, "--pause-at is told to one guest; use `isl-emu pause --at`"),
        *((True, reason) for part in PARTS for reason in part.one_guest(source)),
    ):
        if wrong:
            raise ScenarioError(f"--guests: is {guests}, but {reason}; leave --guests out")
    found = cut(source.plan, guests, seed=source.scenario.seed)
    first = [name for one in PARTS for name in one.together(source.scenario)]
    part = together_first(source.plan, found.part, first)
    return Spread(Portion(0, part), lookahead_of(source, part, guests))


def together_first(plan: LinkPlan, part: np.ndarray, names: Iterable[str]) -> np.ndarray:
    """The same parts, but some nodes, and what terrestrial lines join to them, are in one, and that is the first."""
    part, nodes = part.copy(), [plan.nodes.index(name) for name in names]
    if nodes:
        home = int(np.bincount(part[nodes]).argmax())
        moved = np.zeros(len(part), bool)
        moved[nodes] = True
        lines = plan.links.kind == LinkKind.TERRESTRIAL
        a, b = plan.links.a[lines], plan.links.b[lines]
        while (further := moved[a] != moved[b]).any():
            moved[a[further]] = moved[b[further]] = True
        part[moved] = home
        part = np.where(part == home, 0, np.where(part == 0, home, part)).astype(np.int32)
    return part


def lookahead_of(source: Source, part: np.ndarray, guests: int) -> int:
    """The least time that a packet takes from one part to another."""
    links, least_ns = source.plan.links, least_delays_ns(source.plan)
    crossing = part[links.a] != part[links.b]
    if len(np.unique(part)) < guests:
        raise ScenarioError(
            f"--guests: is {guests}, but where all nodes are together that must be another has none; use fewer guests"
        )
    lookahead_ns = int(least_ns[crossing].min(initial=NO_LINK))
    if lookahead_ns < LEAST_LOOKAHEAD_NS:
        raise ScenarioError(
            f"--guests: is {guests}, but a link between two of the guests would take {lookahead_ns} ns, and packets "
            f"take {LEAST_LOOKAHEAD_NS / NS_PER_MS:g} ms or more between guests; use fewer guests"
        )
    return min(lookahead_ns, NS_PER_MS * 1000)


def leave_parts(folder: RunFolder, spread: Spread) -> None:
    """Leave every guest the part of each node, and a journal with all that was prepared."""
    spread.portion.write(folder.path)
    for number in range(1, spread.portion.count):
        shutil.copytree(folder.journal, RunFolder(folder.path, number).journal, copy_function=os.link)
