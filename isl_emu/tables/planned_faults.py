"""The plan's faults by name and time: which of them stood in a packet's or a question's way."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from isl_emu.linkplan.fault_events import FaultThing
from isl_emu.linkplan.faults import links_hit
from isl_emu.linkplan.plan import LinkPlan
from isl_emu.tables.planned_paths import PlannedPaths


class PlannedFaults:
    """What each event of the plan's faults hits."""

    def __init__(self, plan: LinkPlan, paths: PlannedPaths):
        self._plan, self._paths, self._faults = plan, paths, plan.faults
        event, link = links_hit(plan, plan.faults)
        order = np.argsort(event, kind="stable")
        bounds = np.searchsorted(event[order], np.arange(len(plan.faults.fault) + 1))
        self.links = [frozenset(link[order[a:b]].tolist()) for a, b in zip(bounds[:-1], bounds[1:], strict=True)]
        self._index = {name: number for number, name in enumerate(plan.nodes.names)}

    def name(self, event: int) -> str:
        """The name of its fault."""
        return self._faults.names[int(self._faults.fault[event])]

    def in_the_way(self, station: str, satellite: str | None, from_ns: int, until_ns: int) -> Iterator[int]:
        """The events that held in a time and hit the satellite's server or power, or a link of the planned way there.

        Where there was no way, each event that held and hits a link may be why. Bits that were flipped are in no way.

        Args:
            satellite: None if none could be asked.
        """
        step_ns, faults = self._plan.grid.step_ns, self._faults
        lasting = np.array([effect != "flip-bits" for effect in faults.effects], bool)[faults.fault]
        held = lasting & (faults.k_from * step_ns < until_ns) & (faults.k_until * step_ns > from_ns)
        if not held.any():
            return
        path = None if satellite is None else self._paths.at(station, satellite, self._paths.instant(from_ns))
        for event in np.flatnonzero(held).tolist():
            thing, target = int(faults.thing[event]), int(faults.target[event])
            at_server = thing in (FaultThing.SERVER, FaultThing.NODE) and target == self._index.get(satellite or "")
            if at_server or (self.links[event] and (path is None or self.links[event] & set(path.links))):
                yield event
