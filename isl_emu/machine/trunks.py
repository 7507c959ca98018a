"""What a guest's kernel knows of its links to other guests in real time, and of the machine's clock.

Guests in real time share no calendar: what goes from one to another is due at a time of CLOCK_REALTIME, which so has to
be the same in all of them. The kernel says what the machine's shows, sends and takes probes over its trunks, and counts
frames that came after they were due. Source: `kernel/patches/8-trunks.patch`.
"""

from __future__ import annotations

import ctypes
import os
import struct
import time
from pathlib import Path
from typing import NamedTuple

from isl_emu.errors import MachineError
from isl_emu.units import NS_PER_S

PARAMETERS = Path("/sys/module/trunk/parameters")
MACHINE_VARIABLE = "ISL_EMU_MACHINE"  # in a guest: which machine it is on
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
READINGS = 16  # of both clocks, of which the one is taken that took the least time

# Source: linux/timex.h, struct timex of x86-64
_ADJ_SETOFFSET, _ADJ_NANO = 0x0100, 0x2000
_TIMEX_BYTE, _MODES_AT, _TIME_AT = 208, 0, 72


class Clocks(NamedTuple):
    """By how much the machine's UTC is ahead of this guest's, ns, and how wrong that may be."""

    ahead_ns: int
    uncertainty_ns: int


class ProbeTaken(NamedTuple):
    """A probe of another guest: for how long it was on its way by both guests' clocks, and what it said, ns."""

    peer: int
    took_ns: int
    content_ns: int


class Frames(NamedTuple):
    """What has come from another guest since it booted, and by how much a frame was late at most since last asked."""

    peer: int
    came: int
    late: int
    latest_ns: int


def machine_id() -> str:
    """What tells this machine from others, until it boots again."""
    return BOOT_ID.read_text().strip()


def machine_here() -> str:
    """The machine that this guest is on."""
    return os.environ[MACHINE_VARIABLE]


def read_clocks() -> Clocks:
    """Compare the machine's clock with this guest's: it is read between two readings of the machine's."""
    found = []
    for _ in range(READINGS):
        before_ns, own_ns, after_ns = map(int, (PARAMETERS / "clocks").read_text().split())
        found.append(Clocks((before_ns + after_ns) // 2 - own_ns, (after_ns - before_ns + 1) // 2))
    return min(found, key=lambda one: one.uncertainty_ns)


def keep_clock(ahead_ns: int) -> None:
    """Move this guest's UTC by so much, whatever time that takes.

    Raises:
        MachineError: the kernel refuses.
    """
    seconds, ns = divmod(ahead_ns, NS_PER_S)
    timex = ctypes.create_string_buffer(_TIMEX_BYTE)
    struct.pack_into("=I", timex, _MODES_AT, _ADJ_SETOFFSET | _ADJ_NANO)
    struct.pack_into("=qq", timex, _TIME_AT, seconds, ns)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.clock_adjtime(time.CLOCK_REALTIME, timex) < 0:
        raise MachineError(
            f"guest kernel: its clock cannot be set ({os.strerror(ctypes.get_errno())}), but guests of one run share "
            "one; build the kernel anew with `python -m isl_emu.machine.kernel_build`"
        )


def send_probe(peer: int, content_ns: int) -> None:
    """Send a probe to another guest."""
    (PARAMETERS / "probes").write_text(f"{peer} {content_ns}")


def take_probes() -> list[ProbeTaken]:
    """The probes that have come since the last call, 64 at the most."""
    return [ProbeTaken(*map(int, line.split())) for line in (PARAMETERS / "probes").read_text().splitlines()]


def count_frames() -> list[Frames]:
    """What has come from each other guest."""
    return [Frames(*map(int, line.split())) for line in (PARAMETERS / "frames").read_text().splitlines()]
