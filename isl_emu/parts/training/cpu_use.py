"""When satellites computed for a training with real gradients: that takes this machine's CPUs, and may."""

from __future__ import annotations

from collections.abc import Iterator

from isl_emu.parts.finished_run import Rows
from isl_emu.scenario.model import Scenario


def learning_spells(rows: Rows, scenario: Scenario) -> Iterator[tuple[int, int, float]]:
    """From when to when each participant of a step computed, and with how many CPUs, from the rows of its table.

    A participant is taken to begin with the first one of its step. Modelled gradients take no computing.
    """
    slowdown = scenario.time.slowdown
    shares = {job.name: min(job.real.cpus / slowdown, 1.0) for job in scenario.training if job.real}
    for row in rows:
        for compute_ns in row["compute_ns"] or ():
            if row["job"] in shares and compute_ns is not None and row["t_start_ns"] is not None:
                yield row["t_start_ns"], row["t_start_ns"] + compute_ns, shares[row["job"]]
