"""A run spread over several guest kernels on one clock: which node is where, and what each guest is left."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from isl_emu.errors import ScenarioError
from isl_emu.files import write_json
from isl_emu.machine.place import Place
from isl_emu.partition.cut import LEAST_LOOKAHEAD_NS, Cut, cut
from isl_emu.partition.load import load_of
from isl_emu.parts.part import Source
from isl_emu.parts.registry import PARTS
from isl_emu.runs.folder import RunFolder
from isl_emu.runs.portion import FILE, Portion
from isl_emu.runs.wishes import Wishes
from isl_emu.units import NS_PER_MS, NS_PER_S

MOST_GUESTS = 64  # a guest has so many trunks, and the calendar: kernel/patches/8-trunks.patch
MOST_IN_REAL_TIME = 32  # each trunk has an interrupt then
LEAST_DELAY_NS = {"exact": LEAST_LOOKAHEAD_NS, "real": NS_PER_MS}
"""Of a link that crosses, by the clock: in real time a frame is on its way to another guest for 0.1 ms, or longer where
the machine is busy."""


@dataclass(frozen=True)
class Spread:
    """How a run is spread.

    Args:
        portion: its first part, and with it the part of each node.
        lookahead_ns: no packet takes less from one guest to another; 0 in real time, where nobody waits for others.
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
        (place.kind != "guest", f"the run is on this machine's own kernel ({place.reason})"),
        (
            place.kernel is not None and not place.kernel.exact,
            "the distribution's kernel has no links between guests; `isl-emu doctor` says what it takes to build ours",
        ),
        (
            place.clock == "real" and guests > MOST_IN_REAL_TIME,
            f"in real time a guest has links to {MOST_IN_REAL_TIME - 1} others at most",
        ),
        (wishes.interactive, "--cli has one kernel's nodes"),
        (
            place.clock == "real" and wishes.pause_at_ns is not None,
            "--pause-at holds one clock, and in real time each guest has its own",
        ),
        *((True, reason) for reason in not_spread(source)),
    ):
        if wrong:
            raise ScenarioError(f"--guests: is {guests}, but {reason}; leave --guests out")
    found = cut_of(source, guests, place.clock)
    longest_ns = NS_PER_S if place.clock == "exact" else 0  # all meet once a slice anyway
    return Spread(Portion(0, found.part), min(found.lookahead_ns or longest_ns, longest_ns), found.to_json(source.plan))


def cut_of(source: Source, parts: int, clock: Literal["exact", "real"] = "exact") -> Cut:
    """A run cut by what all that it carries is expected to take.

    In slow motion a link takes as much longer.

    Raises:
        ScenarioError: it cannot be cut into so many parts.
        MachineError: what cuts it is not installed.
    """
    flows = [flow for part in PARTS for flow in part.flows(source)]
    together = [group for part in PARTS for group in part.together(source.scenario)]
    load = load_of(source.plan, source.routes, flows)
    slowdown, seed = source.scenario.time.slowdown, source.scenario.seed
    least_ns = round(LEAST_DELAY_NS[clock] / slowdown)
    return cut(source.plan, parts, load=load, together=together, seed=seed, least_lookahead_ns=least_ns)


def not_spread(source: Source) -> list[str]:
    """Why what a run carries cannot be spread over several guests; empty if it can."""
    return [reason for part in PARTS for reason in part.one_guest(source)]


def leave_parts(folder: RunFolder, spread: Spread) -> None:
    """Leave every guest the cut, with the part of each node in it, and a journal with all that was prepared."""
    write_json(folder.path / FILE, spread.told)
    for number in range(1, spread.portion.count):
        shutil.copytree(folder.journal, RunFolder(folder.path, number).journal, copy_function=os.link)
