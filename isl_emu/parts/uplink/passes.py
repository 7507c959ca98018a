"""When a file can be sent from the ground to one satellite: the passes of its stations, and when they would be done."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from isl_emu.timebase import TimeGrid
from isl_emu.units import NS_PER_S


@dataclass(frozen=True)
class Contact:
    """The planned path from a station to the satellite at an instant.

    Args:
        rate_bit_s: of its slowest link, as shaped.
    """

    delay_ns: int
    rate_bit_s: int


@dataclass(frozen=True)
class Pass:
    """A time during which a station can send to the satellite without a break, over whichever satellites."""

    station: str
    start_ns: int
    end_ns: int


ContactOf = Callable[[str, int], "Contact | None"]  # (station, instant) -> its contact


def plan_passes(stations: Sequence[str], grid: TimeGrid, begin_ns: int, contact: ContactOf) -> list[Pass]:
    """The passes to use, one at a time: a station is kept while it has a path; then the nearest by delay follows."""
    passes: list[Pass] = []
    for k, station in enumerate(_chosen(stations, grid, begin_ns, contact)):
        start_ns, end_ns = max(k * grid.step_ns, begin_ns), (k + 1) * grid.step_ns
        if station is None or end_ns <= begin_ns:
            continue
        if passes and (passes[-1].station, passes[-1].end_ns) == (station, start_ns):
            start_ns = passes.pop().start_ns
        passes.append(Pass(station, start_ns, end_ns))
    return passes


def planned_end_ns(passes: Iterable[Pass], grid: TimeGrid, size_byte: int, contact: ContactOf) -> int | None:
    """When `size_byte` would be up at the planned rates, without headers and losses; None if not in this run."""
    left_bit = 8.0 * size_byte
    for each in passes:
        for k in range(each.start_ns // grid.step_ns, -(-each.end_ns // grid.step_ns)):
            start_ns, end_ns = max(k * grid.step_ns, each.start_ns), (k + 1) * grid.step_ns
            rate_bit_s = contact(each.station, k).rate_bit_s
            if rate_bit_s * (end_ns - start_ns) >= left_bit * NS_PER_S:
                return start_ns + round(left_bit * NS_PER_S / rate_bit_s)
            left_bit -= rate_bit_s * (end_ns - start_ns) / NS_PER_S
    return None


def _chosen(stations: Sequence[str], grid: TimeGrid, begin_ns: int, contact: ContactOf) -> Iterable[str | None]:
    """The station to send from at each instant, or None."""
    station = None
    for k in range(grid.count):
        if (k + 1) * grid.step_ns <= begin_ns:
            yield None
            continue
        if station is None or contact(station, k) is None:
            seen = [(found.delay_ns, name) for name in stations if (found := contact(name, k))]
            station = min(seen)[1] if seen else None
        yield station
