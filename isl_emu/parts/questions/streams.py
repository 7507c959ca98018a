"""What lasers carried of an answer's stream, and what the sky did to it: bytes on lasers, gaps at handovers."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate, pairwise
from typing import Any

from isl_emu.tables.planned_paths import PlannedPaths


def attempt_row(record: Mapping[str, Any], paths: PlannedPaths) -> dict[str, Any]:
    """A journal's attempt with the bytes that it put on lasers.

    The question goes over the lasers of the path at that time. The answer comes evenly from its first token to its
    end, over the lasers of the paths back meanwhile.
    """
    station, satellite, send_ns = record["station"], record["satellite"], record["t_send_ns"]
    if satellite is None:
        return {**record, "laser_byte": 0}
    out = paths.lasers(station, satellite, paths.instant(send_ns))
    first_ns = send_ns if record["t_first_ns"] is None else record["t_first_ns"]
    instants = range(paths.instant(first_ns), paths.instant(record["t_finish_ns"]) + 1)
    back = [lasers for k in instants if (lasers := paths.lasers(satellite, station, k)) is not None]
    on_the_way_back = record["received_byte"] * sum(back) / len(back) if back else 0
    return {**record, "laser_byte": round(record["sent_byte"] * (out or 0) + on_the_way_back)}


def gaps_at_handover_ns(record: Mapping[str, Any], paths: PlannedPaths) -> list[int]:
    """The inter-token latencies of an answer during which its path changed.

    What was on its way when the path changed still arrives, so a change reaches the station up to the path's delay
    later.
    """
    first_ns, gaps_ns = record.get("t_first_ns"), record.get("itl_ns") or ()
    if first_ns is None or not gaps_ns:
        return []
    times = list(accumulate(gaps_ns, initial=first_ns))
    ends = record["satellite"], record["station"]
    changes = paths.changes(*ends, times[0], times[-1])
    return [
        later - earlier
        for earlier, later in pairwise(times)
        if any(earlier < done_ns and due_ns < later for due_ns, done_ns in changes)
    ]
