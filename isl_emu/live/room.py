"""The memory that a run needs: for the network's nodes, for the programs on satellites, and for the files they read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from isl_emu.errors import MachineError
from isl_emu.machine.claims import MIB, available_memory_byte
from isl_emu.parts.part import Need
from isl_emu.parts.registry import PARTS
from isl_emu.scenario.model import Scenario

GUEST_BASE_BYTE = 1_500_000_000  # kernel, Python, and the files that both keep in memory
NODE_BYTE = 600_000  # a namespace with its links and routes; measured with 2,800 satellites, with a half more


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
