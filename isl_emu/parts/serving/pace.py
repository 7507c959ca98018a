"""Whether servers that stand for other computers kept their pace: tokens on time, and decoding as fast as wanted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

from isl_emu.parts.finished_run import FinishedRun, Rows
from isl_emu.parts.part import Pace
from isl_emu.scenario.model import Scenario
from isl_emu.units import NS_PER_MS, NS_PER_S

FILE = "pace.jsonl"  # in the journal: what the modelled servers say of themselves at their end


@dataclass(frozen=True)
class PaceFidelity:
    """How punctual modelled tokens were, and how fast throttled servers decoded.

    Args:
        steps: decoding steps of all modelled servers.
        throttled_ratio: decoding pace of the throttled servers' answers over what was wanted, median; None without any.
    """

    steps: int
    late_p50_ns: int | None
    late_p99_ns: int | None
    late_max_ns: int | None
    throttled_ratio: float | None


def pace_fidelity(run: FinishedRun, pace: Pace) -> PaceFidelity:
    """The pace of a run's servers.

    Args:
        pace: what other parts left of it.
    """
    said = next(iter(run.journal("pace").records), {})
    keys = ("late_p50_ns", "late_p99_ns", "late_max_ns")
    ratios = list(_throttled_ratios(run.rows("requests"), run.rows("servers"), run.scenario, pace))
    return PaceFidelity(said.get("steps", 0), *(said.get(key) for key in keys), median(ratios) if ratios else None)


def pace_reasons(pace: PaceFidelity, scenario: Scenario) -> Iterator[str]:
    """Why a run whose servers did not keep their pace is invalid."""
    limits = scenario.fidelity
    if pace.late_p99_ns is not None and pace.late_p99_ns > limits.token_lateness_p99_ns:
        yield (
            f"modelled servers: the 99th percentile of how late tokens were is {pace.late_p99_ns / NS_PER_MS:.3g} ms, "
            f"but at most {limits.token_lateness_p99_ns / NS_PER_MS:.3g} ms is allowed; ask fewer questions at once, "
            "or use slow motion"
        )
    if pace.throttled_ratio is not None and abs(pace.throttled_ratio - 1.0) > limits.throttled_error_ratio:
        yield (
            f"throttled servers: they decoded at {pace.throttled_ratio:.2f} times the wanted pace (median), but it may "
            f"be off by {limits.throttled_error_ratio:g} at the most; lower the load, or use a machine of its own"
        )


def _throttled_ratios(requests: Rows, servers: Rows, scenario: Scenario, pace: Pace) -> Iterator[float]:
    """The decoding pace of each answer that a throttled server gave whole, over what was wanted of it."""
    wanted = {row["group"]: row["decode_tokens_s"] for row in servers if row["server"] == "throttled"}
    for row in requests:
        spent_ns, tokens = row["server_predict_ns"], row["answer_tokens"]
        group = scenario.compute_of(row["satellite"]) if wanted and row["satellite"] else None
        if group is not None and group.server == "throttled" and spent_ns and tokens:
            end_ns = row["t_finish_ns"]
            allowed = pace(row["satellite"], end_ns - spent_ns, end_ns)
            yield tokens * NS_PER_S / spent_ns / (wanted[scenario.compute.index(group)] * allowed)
