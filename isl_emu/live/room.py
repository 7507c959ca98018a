"""The memory that a run needs: for the network's nodes, for the programs on satellites, and for the files they read.

And, in exact time, this machine's time for its packets.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from isl_emu.errors import MachineError
from isl_emu.machine.claims import MIB, available_memory_byte
from isl_emu.parts.part import Need, bulk_packet_byte
from isl_emu.parts.registry import PARTS
from isl_emu.scenario.model import Scenario
from isl_emu.tables.text import wall_text
from isl_emu.units import NS_PER_S

GUEST_BASE_BYTE = 1_500_000_000  # kernel, Python, and the files that both keep in memory
NODE_BYTE = 600_000  # a namespace with its links and routes; measured with 2,800 satellites, with a half more

# Processor time in exact time, measured (docs/benchmarks.md, tests/benchmarks/bench_exact.py); a further hop: none
MESSAGE_S = 300e-6  # a probe, or half of a token: two programs of ours work on it
PACKET_S = 100e-6  # of bulk, with its acknowledgement
BULK_BYTE_S = 8e-9  # to copy
WORTH_A_WARNING_S = 120.0


def all_needs(scenario: Scenario) -> list[Need]:
    """Everything that programs in containers do in a run.

    Raises:
        WorkloadError: a file that one of them needs cannot be used.
    """
    return [need for part in PARTS for need in part.needs(scenario)]


def files_of(needs: Sequence[Need]) -> set[Path]:
    """The files that programs read; each is in memory once, however many read it."""
    return {path for need in needs for path in need.visible}


def guest_memory_byte(scenario: Scenario, needs: Sequence[Need]) -> int:
    """Room for a guest's kernel and all that the run has in it."""
    return GUEST_BASE_BYTE + run_memory_byte(scenario, needs)


def run_memory_byte(scenario: Scenario, needs: Sequence[Need]) -> int:
    """Room for the nodes, for what the programs on satellites will take at the most, and for their files, once."""
    net_byte = NODE_BYTE * len(scenario.satellite_names)
    file_byte = sum(path.stat().st_size for path in files_of(needs))
    return (
        net_byte
        + file_byte
        + sum(need.expected_byte for need in needs)
        + sum(part.own_byte(scenario) for part in PARTS)
    )


def check_room(scenario: Scenario) -> None:
    """Refuse a run for which this machine has too little memory, before anything is built.

    Raises:
        MachineError: what it needs, and what there is.
    """
    needs = all_needs(scenario)
    needed_byte, available_byte = run_memory_byte(scenario, needs), available_memory_byte()
    if needed_byte > available_byte:
        raise MachineError(
            f"memory: {available_byte // MIB:,} MiB are available, but {len(scenario.satellite_names):,} satellites "
            f"with {len(needs):,} programs on them may take {needed_byte // MIB:,} MiB; let fewer satellites run "
            "programs, or use modelled servers"
        )


def exact_time_warnings(scenario: Scenario) -> tuple[str, ...]:
    """Whether its packets make exact time slower than real time, for minutes; one sentence, or none."""
    if scenario.time.clock == "real":
        return ()
    packet_byte = bulk_packet_byte(scenario)
    duration_s = scenario.time.duration_ns / NS_PER_S
    found = []
    for traffic in (traffic for part in PARTS for traffic in part.traffic(scenario)):
        bulk = traffic.byte / packet_byte
        spent_s = traffic.messages * MESSAGE_S + bulk * PACKET_S + traffic.byte * BULK_BYTE_S
        found.append((spent_s, traffic.messages + bulk, traffic))
    wall_s, packets = sum(spent_s for spent_s, *_ in found), sum(count for _, count, _ in found)
    if wall_s < max(WORTH_A_WARNING_S, duration_s):
        return ()
    _, _, most = max(found, key=lambda one: one[0])
    less = "state a smaller rate_scale, with which it sends less" if most.scaled else "let it send less"
    return (
        f"rate_scale: is {scenario.rate_scale:g}, but then {most.what} and all else send about {packets:,.0f} packets "
        f"({packets / duration_s:,.0f} per emulated second), for which exact time takes about {wall_text(wall_s)} of "
        f"the wall's time; {less}, or shorten time.duration",
    )
