"""The section on the machine: what the verdict rests on."""

from __future__ import annotations

from collections.abc import Iterator

from isl_emu.results.fidelity import Fidelity
from isl_emu.tables.distribution import Distribution
from isl_emu.tables.text import counted, share, table, time_text


def machine_section(fidelity: Fidelity) -> Iterator[str]:
    yield "MACHINE"
    yield from table(("", ""), list(_machine_facts(fidelity)), left=2)


def _machine_facts(fidelity: Fidelity) -> Iterator[tuple[str, str]]:
    replay, cpu, calibration = fidelity.replay, fidelity.cpu, fidelity.calibration
    instants = f"{replay.applied_instants} of {replay.planned_instants} instants applied"
    yield "changes", f"{_punctuality(replay.lateness_ns)} · {instants}"
    differing = max(replay.mismatches, fidelity.readback_mismatches or 0)
    if fidelity.readback_mismatches is not None or differing:
        yield "kernel", f"{counted(differing, 'setting')} not as planned when read back"
    if calibration.bias_ns is not None:
        left = f"; {time_text(calibration.residue_ns)} left" if calibration.residue_ns is not None else ""
        yield "netem", f"adds {time_text(calibration.bias_ns)} by itself, which is taken off{left}"
    yield from fidelity.machine
    if cpu.samples:
        crowded = f" · {counted(cpu.crowded_answers, 'answer')} short of CPU" if cpu.crowded_answers else ""
        busy = f"{share(cpu.busy_mean_ratio)} busy, saturated for {share(cpu.saturated_ratio)} of the time"
        yield "CPU", busy + crowded
        yield "wake-ups", _punctuality(cpu.wakeup_lateness_ns)
    if (waited := fidelity.surroundings.guest_waiting_mean_ratio) is not None:
        yield "outside", f"others had the guest's CPU when it wanted to run for {share(waited)} of the time"
    if fidelity.dropped_packets is not None:
        marked = f" · {fidelity.marked_packets:,} marked by managed queues" if fidelity.marked_packets else ""
        dropped = f"{counted(fidelity.dropped_packets, 'packet')} dropped: link down, planned loss, or queue full"
        yield "links", dropped + marked
    if fidelity.journal_lines_lost:
        yield "journal", f"{counted(fidelity.journal_lines_lost, 'torn line')} left out"


def _punctuality(lateness: Distribution) -> str:
    return f"late by {time_text(lateness.p50)} (p50), {time_text(lateness.p99)} (p99), {time_text(lateness.max)} (max)"
