"""When programs start: at a time, again and again, or on what the plan holds for their nodes; a pure module."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from isl_emu.errors import WorkloadError
from isl_emu.limits import STARTS
from isl_emu.linkplan.contacts import find_contacts
from isl_emu.linkplan.fault_events import FaultThing
from isl_emu.linkplan.plan import LinkKind, LinkPlan
from isl_emu.scenario.model import Scenario
from isl_emu.scenario.programs import Program


@dataclass(frozen=True, order=True)
class Occasion:
    """A time at which a program is to start, since instant 0, and whom or what that is about: a node, or a fault."""

    t_ns: int
    about: str = ""


def occasions(program: Program, scenario: Scenario, plan: LinkPlan) -> list[Occasion]:
    """All times at which a program is to start in a run, in order.

    Raises:
        WorkloadError: they are more than the limit.
    """
    if program.on is None:
        until_ns = plan.grid.duration_ns if program.repeat_ns else program.at_ns + 1
        return [Occasion(t_ns) for t_ns in range(program.at_ns, until_ns, program.repeat_ns or 1)]
    node = plan.nodes.index(program.of or program.node)
    if program.on == "step":
        found = [Occasion(t_ns) for t_ns in plan.grid.offsets_ns.tolist()]
    elif program.on == "fault":
        found = sorted(set(_faults(node, scenario, plan)))
    else:
        found = sorted(_contacts(program.on, node, plan))
    chosen = [one for one in found if one.t_ns >= program.at_ns and program.peer in (None, one.about)]
    if excess := STARTS.excess(len(chosen)):
        raise WorkloadError(f"program {program.name}: is started on each {program.on}, which {excess}")
    return chosen


def _contacts(on: str, node: int, plan: LinkPlan) -> Iterator[Occasion]:
    """What begins or ends within the run: links that are up at its first instant, or its last, were and stay so."""
    links, found = plan.links, find_contacts(plan)
    mine = (links.a[found.link] == node) | (links.b[found.link] == node)
    if on == "handover":
        mine &= links.kind[found.link] == LinkKind.GROUND
    chosen = np.flatnonzero(mine)
    order = chosen[np.argsort(found.start_ns[chosen], kind="stable")]
    before: int | None = None
    for contact in order.tolist():
        link, start_ns, end_ns = (int(column[contact]) for column in (found.link, found.start_ns, found.end_ns))
        peer = int(links.a[link] + links.b[link]) - node
        begins = on == "contact-begins" or (on == "handover" and before not in (None, peer))
        before = peer
        if begins and start_ns > 0:
            yield Occasion(start_ns, plan.nodes.names[peer])
        if on == "contact-ends" and end_ns < plan.grid.duration_ns:
            yield Occasion(end_ns, plan.nodes.names[peer])


def _faults(node: int, scenario: Scenario, plan: LinkPlan) -> Iterator[Occasion]:
    """The faults that strike a node: itself, its links, its model server, and what runs there."""
    faults, links, own = plan.faults, plan.links, list(scenario.own_programs.values())
    name = plan.nodes.names[node]
    rows = zip(faults.fault.tolist(), faults.thing.tolist(), faults.target.tolist(), faults.k_from.tolist())
    for fault, thing, target, k in rows:
        if thing == FaultThing.LINK:
            hit = node in (links.a[target], links.b[target])
        elif thing == FaultThing.PROGRAM:
            hit = name in own[target]
        else:
            hit = target == node
        if hit and k < plan.grid.count:
            yield Occasion(k * plan.grid.step_ns, faults.names[fault])
