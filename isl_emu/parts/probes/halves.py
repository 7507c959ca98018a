"""Probes whose sender and receiver are on different kernels: what each of them knows becomes one record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from isl_emu.parts.probes.prober import LOST_AFTER_NS
from isl_emu.runs.merging import Records


def joined_probes(parts: Sequence[Records]) -> Records:
    """One record for each probe, as one prober writes them.

    Its sender has written of one whose receiver is elsewhere `utc_ns`, when the first link got it, and `open` if it
    ended before the probe was given up for lost; the receiver `arrived_utc_ns` and `hops_seen`.
    """
    records = [record for part in parts for record in part]
    arrived = {_key(record): record for record in records if "arrived_utc_ns" in record}
    joined = []
    for record in records:
        if "arrived_utc_ns" in record:
            continue
        rest = {key: value for key, value in record.items() if key not in ("utc_ns", "open")}
        arrival = arrived.get(_key(record)) if "utc_ns" in record else None
        if arrival and arrival["arrived_utc_ns"] - record["utc_ns"] <= LOST_AFTER_NS:
            rest |= {"delay_ns": arrival["arrived_utc_ns"] - record["utc_ns"], "hops_seen": arrival["hops_seen"]}
        elif record.get("open"):
            continue  # it has neither arrived nor is it lost
        joined.append(rest)
    return sorted(joined, key=lambda record: record["t_send_ns"])


def _key(record: Mapping[str, Any]) -> tuple[str, str, int]:
    return record["a"], record["b"], record["seq"]


def joined_samples(parts: Sequence[Records]) -> Records:
    """What had left the ends of all parts at each time."""
    found: dict[int, dict[str, int]] = {}
    for part in parts:
        for record in part:
            found.setdefault(record["t_ns"], {}).update(record["byte"])
    return [{"t_ns": t_ns, "byte": found[t_ns]} for t_ns in sorted(found)]
