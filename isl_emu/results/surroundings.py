"""Whether the machine around the kernel of the run left it its CPU: what `isl_emu.machine.outside` saw, judged.

Inside a guest kernel, time that another process took looks like time that the guest's own programs took.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from isl_emu.runs.execution import Execution
from isl_emu.scenario.model import Scenario
from isl_emu.units import NS_PER_S

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class SurroundingsFidelity:
    """Means over the emulated time, pauses left out; all None where the run was not in a guest."""

    samples: int
    guest_busy_mean_ratio: float | None
    guest_waiting_mean_ratio: float | None
    steal_mean_ratio: float | None
    pressure_mean_ratio: float | None


def surroundings_fidelity(outside: Rows, spans: Sequence[tuple[int, int]]) -> SurroundingsFidelity:
    """The load around the guest.

    Args:
        spans: from when to when the run was live and did not stand, UTC ns.
    """
    live = [row for row in outside if _within(row["utc_ns"], spans)]
    names = ("guest_busy_ratio", "guest_waiting_ratio", "steal_ratio", "pressure_ratio")
    return SurroundingsFidelity(len(live), *(mean(live, name) for name in names))


def live_spans(execution: Execution, pauses: Rows, slowdown: float) -> list[tuple[int, int]]:
    """From when to when a run was live and did not stand, UTC ns; nothing if that is not known."""
    if execution.t0_utc is None or execution.ended_ns is None:
        return []
    at_ns, t_ns, spans = round(datetime.fromisoformat(execution.t0_utc).timestamp() * NS_PER_S), 0, []
    for stop in [*pauses, {"t_ns": execution.ended_ns, "lasted_ns": 0}]:
        until_ns = at_ns + round((stop["t_ns"] - t_ns) * slowdown)
        spans.append((at_ns, until_ns))
        at_ns, t_ns = until_ns + stop["lasted_ns"], stop["t_ns"]
    return spans


def surroundings_reasons(
    found: SurroundingsFidelity, own_steal_ratio: float | None, scenario: Scenario
) -> Iterator[str]:
    """Why the run is invalid, if others took its CPU.

    Args:
        own_steal_ratio: what the kernel of the run saw itself; a guest's sees none.
    """
    limit, waiting = scenario.fidelity.cpu_waiting_ratio, found.guest_waiting_mean_ratio
    steal = own_steal_ratio if found.steal_mean_ratio is None else found.steal_mean_ratio
    if waiting is not None and waiting > limit:
        yield (
            f"CPU: the guest kernel waited for its CPU for {waiting:.1%} of the time, because other processes had it, "
            f"but at most {limit:.1%} is allowed; end them, or give the run a machine of its own"
        )
    if steal is not None and steal > limit:
        yield (
            f"CPU: a hypervisor took {steal:.1%} of the machine's CPU time, but at most {limit:.1%} is allowed; use a "
            "machine that shares its CPUs with fewer others"
        )


def mean(rows: Rows, key: str) -> float | None:
    """The mean of a column's known values."""
    values = [row[key] for row in rows if row[key] is not None]
    return sum(values) / len(values) if values else None


def _within(utc_ns: int, spans: Sequence[tuple[int, int]]) -> bool:
    """Whether the second before a time was wholly in one of the spans."""
    return any(begin_ns + NS_PER_S <= utc_ns <= end_ns for begin_ns, end_ns in spans)
