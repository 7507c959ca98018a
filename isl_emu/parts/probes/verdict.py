"""Whether packets took as long as planned, as far as probes measured it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from isl_emu.parts.finished_run import Rows
from isl_emu.scenario.model import Scenario
from isl_emu.tables.distribution import Distribution
from isl_emu.tables.text import beyond


@dataclass(frozen=True)
class ProbeFidelity:
    """Measured against planned one-way delays; errors are absolute, over probes that do not straddle a change."""

    sent: int
    arrived: int
    lost: int  # though a path was planned, and no change was under way
    without_path: int  # none was planned, so it is not expected to arrive
    straddling: int
    strayed: int  # crossed another number of links than planned, or arrived without a planned path
    silent_pairs: tuple[str, ...]  # directions of whose probes with a planned path none arrived
    error_ns: Distribution
    error_per_hop_ns: Distribution
    signed_error_p50_ns: float | None


def probe_fidelity(probes: Rows) -> ProbeFidelity:
    """The errors of the probes that say something: arrived, with a planned path that did not change meanwhile."""
    steady = [row for row in probes if not row["straddles_change"]]
    routed = [row for row in steady if row["planned_delay_ns"] is not None]
    good = [row for row in routed if row["error_ns"] is not None]
    heard = {(row["a"], row["b"]) for row in routed if row["delay_ns"] is not None}
    asked = dict.fromkeys((row["a"], row["b"]) for row in routed)
    return ProbeFidelity(
        sent=len(probes),
        arrived=sum(row["delay_ns"] is not None for row in probes),
        lost=len(routed) - len(good),
        without_path=len(steady) - len(routed),
        straddling=len(probes) - len(steady),
        strayed=sum(_strayed(row) for row in steady),
        silent_pairs=tuple(f"{a} to {b}" for a, b in asked if (a, b) not in heard),
        error_ns=Distribution.of(abs(row["error_ns"]) for row in good),
        error_per_hop_ns=Distribution.of(abs(row["error_ns"]) / row["hops"] for row in good),
        signed_error_p50_ns=Distribution.of(row["error_ns"] for row in good).p50,
    )


def _strayed(probe: Mapping[str, Any]) -> bool:
    if probe["hops_seen"] is None:
        return False
    return probe["hops"] is None or not probe["hops_least"] <= probe["hops_seen"] <= probe["hops_most"]


def probe_reasons(probes: ProbeFidelity, scenario: Scenario) -> Iterator[str]:
    """Why a run whose packets did not take as long as planned is invalid."""
    limits = scenario.fidelity
    if scenario.probes.pairs and not probes.sent:
        yield "probes: nothing measured the delays, but the scenario plans probes; see whether the prober was started"
    for pair in probes.silent_pairs:
        yield f"probes: nothing measured the delay from {pair}, but a path was planned; see why no probe arrived"
    if probes.strayed:
        yield (
            f"probes: {probes.strayed} of {probes.sent} crossed another number of links than planned, but none may; "
            "check the routes"
        )
    less_load = "lower the load, or give the run a machine of its own"
    if (found_ns := probes.error_per_hop_ns.p50) is not None and found_ns > limits.probe_error_per_hop_p50_ns:
        yield beyond("probes: the median error per hop", found_ns, limits.probe_error_per_hop_p50_ns, less_load)
    if (found_ns := probes.error_ns.p95) is not None and found_ns > limits.probe_error_p95_ns:
        yield beyond("probes: the 95th percentile of the error", found_ns, limits.probe_error_p95_ns, less_load)
