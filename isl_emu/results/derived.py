"""The columns that nobody measured: what the plan says about each request and probe, and what follows from both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from isl_emu.linkplan.plan import LinkPlan
from isl_emu.results.records import PROBE_FRAME_BYTE
from isl_emu.routing.paths import Path, PathFinder
from isl_emu.units import NS_PER_S

Row = dict[str, Any]


class PlannedPaths:
    """The plan's paths by node name and run time, each looked up once.

    Args:
        done_ns: for each instant that was applied, when its last change was in force (ns since the start of the run).
    """

    def __init__(self, plan: LinkPlan, finder: PathFinder, done_ns: Mapping[int, int]):
        self._plan = plan
        self._finder = finder
        self._done_ns = done_ns
        self._index = {name: index for index, name in enumerate(plan.nodes.names)}
        self._found: dict[tuple[str, str, int], Path | None] = {}

    def instant(self, t_ns: int) -> int:
        """The instant whose state is due at `t_ns`."""
        return self._plan.grid.instant_at(t_ns)

    def at(self, source: str, destination: str, k: int) -> Path | None:
        """The path at instant `k`, or None where the plan has none."""
        key = (source, destination, k)
        if key not in self._found:
            self._found[key] = self._finder.path(self._index[source], self._index[destination], k)
        return self._found[key]

    def names(self, path: Path | None) -> list[str] | None:
        """The path's node names."""
        return None if path is None else [self._plan.nodes.names[node] for node in path.nodes]

    def changes_between(self, source: str, destination: str, from_ns: int, to_ns: int) -> int:
        """How often the path takes other links, appears or vanishes after `from_ns` until `to_ns`."""
        instants = range(self.instant(from_ns), self.instant(to_ns) + 1)
        taken = [path and path.links for path in (self.at(source, destination, k) for k in instants)]
        return sum(before != after for before, after in zip(taken, taken[1:], strict=False))

    def vanishes_between(self, a: str, b: str, from_ns: int, to_ns: int) -> bool:
        """Whether at some instant of that time the plan had no path there or none back."""
        instants = range(self.instant(from_ns), self.instant(to_ns) + 1)
        return any(self.at(a, b, k) is None or self.at(b, a, k) is None for k in instants)

    def straddles_change(self, source: str, destination: str, from_ns: int, to_ns: int) -> bool:
        """Whether an instant that changes the path was due, or was late and in the making, in that time."""
        k = self.instant(to_ns)
        while k > 0 and max(self._done_ns.get(k, 0), k * self._plan.grid.step_ns) >= from_ns:
            if self.at(source, destination, k) != self.at(source, destination, k - 1):
                return True
            k -= 1
        return False

    def serialisation_ns(self, path: Path, k: int) -> int:
        """The time to put one probe on each link of the path, at the shaped rates."""
        total_s = sum(PROBE_FRAME_BYTE * 8 / rate_bit_s for rate_bit_s in self._rates_bit_s(path, k))
        return round(total_s * NS_PER_S)

    def capacity_byte(self, source: str, destination: str, from_ns: int, to_ns: int) -> int:
        """What the slowest link of the path could carry in that time, at the shaped rates."""
        step_ns, total_bit = self._plan.grid.step_ns, 0.0
        for k in range(self.instant(from_ns), self.instant(to_ns) + 1):
            if path := self.at(source, destination, k):
                span_ns = min(to_ns, (k + 1) * step_ns) - max(from_ns, k * step_ns)
                total_bit += min(self._rates_bit_s(path, k)) * max(0, span_ns) / NS_PER_S
        return int(total_bit / 8)

    def _rates_bit_s(self, path: Path, k: int) -> list[float]:
        """Of each link along the path, as shaped."""
        snapshot, ends, found = self._plan.snapshot(k), self._plan.links.a, []
        for node, link in zip(path.nodes, path.links, strict=False):
            row = int(np.searchsorted(snapshot.link, link))
            rates = snapshot.rate_ab_bit_s if ends[link] == node else snapshot.rate_ba_bit_s
            found.append(float(rates[row]) * self._plan.rate_scale)
        return found


def request_row(record: Mapping[str, Any], paths: PlannedPaths, deadline_ns: int) -> Row:
    """A journal's request with the columns that follow from it and from the plan."""
    record = {**record, "outcome": _outcome(record, paths)}
    return {**record, **_latency_columns(record, deadline_ns), **_path_columns(record, paths)}


def _outcome(record: Mapping[str, Any], paths: PlannedPaths) -> str:
    """What became of a request: an answer that stopped coming is a lost path's fault if the plan had none meanwhile."""
    if record["outcome"] != "timed_out":
        return record["outcome"]
    ends = record["station"], record["satellite"], record["t_send_ns"], record["t_finish_ns"]
    return "path_lost" if paths.vanishes_between(*ends) else "timed_out"


def _latency_columns(record: Mapping[str, Any], deadline_ns: int) -> Row:
    e2e_ns, ttft_ns, tokens = record.get("e2e_ns"), record.get("ttft_ns"), record.get("answer_tokens")
    served = (record.get("server_prompt_ns"), record.get("server_predict_ns"))
    row: Row = {"tpot_ns": None, "network_ns": None, "network_ratio": None}
    if None not in (e2e_ns, ttft_ns) and tokens and tokens > 1:
        row["tpot_ns"] = (e2e_ns - ttft_ns) // (tokens - 1)
    if e2e_ns and None not in served:
        row["network_ns"] = e2e_ns - sum(served)
        row["network_ratio"] = row["network_ns"] / e2e_ns
    row["deadline_met"] = record["outcome"] == "completed" and e2e_ns is not None and e2e_ns <= deadline_ns
    return row


def _path_columns(record: Mapping[str, Any], paths: PlannedPaths) -> Row:
    station, satellite, send_ns = record["station"], record.get("satellite"), record.get("t_send_ns")
    if satellite is None or send_ns is None:
        return {}
    k = paths.instant(send_ns)
    there, back = paths.at(station, satellite, k), paths.at(satellite, station, k)
    row = {
        "path_at_send": paths.names(there),
        "hops_at_send": _hops(there),
        "planned_rtt_at_send_ns": there.delay_ns + back.delay_ns if there and back else None,
    }
    finish_ns = record.get("t_finish_ns")
    if finish_ns is not None:
        final = paths.at(station, satellite, paths.instant(finish_ns))
        row |= {"path_at_finish": paths.names(final), "hops_at_finish": _hops(final)}
        row["handovers"] = paths.changes_between(station, satellite, send_ns, finish_ns)
    return row


def _hops(path: Path | None) -> int | None:
    return None if path is None else len(path.links)


def probe_row(record: Mapping[str, Any], paths: PlannedPaths) -> Row:
    """A journal's probe with what the plan says about its way at the time it was sent."""
    a, b, send_ns, delay_ns = record["a"], record["b"], record["t_send_ns"], record.get("delay_ns")
    k = paths.instant(send_ns)
    way = paths.at(a, b, k)
    row: Row = {**record, "path": paths.names(way), "hops": _hops(way)}
    expected_ns = 0
    if way:
        row["planned_delay_ns"], row["planned_serialisation_ns"] = way.delay_ns, paths.serialisation_ns(way, k)
        expected_ns = row["planned_delay_ns"] + row["planned_serialisation_ns"]
        row["error_ns"] = None if delay_ns is None else delay_ns - expected_ns
    row["straddles_change"] = paths.straddles_change(a, b, send_ns, send_ns + (delay_ns or expected_ns))
    return row


def unrecorded_requests(planned: Sequence[Mapping[str, Any]], recorded: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Rows for the planned requests that left no record: the run ended before they did."""
    known = {record["id"] for record in recorded}
    kept = ("id", "station", "satellite", "question", "t_due_ns")
    error = "request: it left no record, but every request leaves one when it ends; the client was stopped first"
    return [
        {**{key: record.get(key) for key in kept}, "outcome": "unfinished", "error": error}
        for record in planned
        if record["id"] not in known
    ]
