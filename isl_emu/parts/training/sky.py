"""What the plan says to a training job: in which order to form a ring, and how long a sum takes at least."""

from __future__ import annotations

from collections.abc import Sequence

from isl_emu.linkplan.plan import LinkPlan
from isl_emu.parts.training.collectives import Schedule
from isl_emu.parts.training.prediction import pairs_of, predicted_ns
from isl_emu.parts.training.ring_order import least_longest, least_total
from isl_emu.routing.laser_paths import LaserPaths


class PlannedSky:
    """The ways between a job's satellites, by the shortest delays of the plan.

    Args:
        ring: "least-total", "least-longest" or "as-listed".
        listed: the job's satellites as they are listed.
    """

    def __init__(self, plan: LinkPlan, ring: str, listed: Sequence[str]):
        self._plan, self._ring, self._listed = plan, ring, list(listed)
        self._node = {name: plan.nodes.index(name) for name in listed}
        self._last: tuple[tuple[int, tuple[str, ...]], LaserPaths] | None = None

    def ring(self, names: Sequence[str], t_ns: int) -> list[str]:
        """The order in which these satellites form a ring."""
        names = sorted(names, key=self._listed.index)
        if self._ring == "as-listed":
            return names
        solve = least_total if self._ring == "least-total" else least_longest
        return [names[index] for index in solve(self._paths(names, t_ns).delay_ns)]

    def predicted_ns(self, plan: Schedule, members: Sequence[str], element_byte: int, t_ns: int) -> int | None:
        """What a schedule takes at least between these satellites; None if two that must talk have no path."""
        paths = self._paths(members, t_ns)
        if not paths.rates_bit_s(pairs_of(plan)).all():
            return None
        return predicted_ns(plan, element_byte, paths.delay_ns, paths.rates_bit_s)

    def _paths(self, names: Sequence[str], t_ns: int) -> LaserPaths:
        """Those of the last call are kept: steps are often shorter than instants."""
        key = self._plan.grid.instant_at(t_ns), tuple(names)
        if self._last is None or self._last[0] != key:
            self._last = key, LaserPaths(self._plan, key[0], [self._node[name] for name in names])
        return self._last[1]
