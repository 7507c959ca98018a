"""What a guest takes from the machine: one CPU for its life, and a file that is its memory."""

from __future__ import annotations

import fcntl
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from isl_emu.errors import MachineError

MIB = 1 << 20
# What the guest's kernel and its host processes take beyond the guest's own memory.
OVERHEAD_BYTE = 128 * MIB


@dataclass(frozen=True)
class CpuClaim:
    """One CPU, and the open lock that says so; the guest inherits `lock`, which is free again when the guest ends."""

    cpu: int
    lock: int


def claim_cpu(turn: int = 0) -> CpuClaim:
    """A CPU of ours that no other guest has, the last first; if all are taken, they take turns.

    The lock lies on the CPU's own folder in /sys: every user can open it, and nothing is left behind.
    """
    ours = sorted(os.sched_getaffinity(0), reverse=True)
    for cpu in ours:
        lock = _open_cpu(cpu)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            continue
        return CpuClaim(cpu, lock)
    shared = ours[turn % len(ours)]
    return CpuClaim(shared, _open_cpu(shared))


def _open_cpu(cpu: int) -> int:
    return os.open(f"/sys/devices/system/cpu/cpu{cpu}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def choose_memory_folder(memory_byte: int) -> Path:
    """Where the file goes that is the guest's memory: /dev/shm if it fits there, else a temporary folder.

    Raises:
        MachineError: the machine has not that much memory, or no folder can hold and map the file.
    """
    available_byte = available_memory_byte()
    if available_byte < memory_byte + OVERHEAD_BYTE:
        raise MachineError(
            f"guest kernel: {available_byte // MIB:,} MiB of memory are available, but the guest is to have "
            f"{memory_byte // MIB:,} MiB (and {OVERHEAD_BYTE // MIB} MiB around it); "
            "end other programs or choose a smaller scenario"
        )
    candidates = [Path("/dev/shm"), Path(tempfile.gettempdir()), Path("/var/tmp")]
    for folder in candidates:
        if _can_hold(folder, memory_byte):
            return folder
    raise MachineError(
        f"guest kernel: its memory is a file, but none of {', '.join(map(str, candidates))} has "
        f"{memory_byte // MIB:,} MiB free, is writable "
        "and allows programs (no `noexec`); set TMPDIR to a folder that has"
    )


def available_memory_byte() -> int:
    """What the machine can give without swapping, or what is left of our cgroup's limit if that is less."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            available_byte, left_byte = int(line.split()[1]) * 1024, _left_in_cgroup_byte()
            return available_byte if left_byte is None else min(available_byte, left_byte)
    raise MachineError(
        "guest kernel: /proc/meminfo has no MemAvailable, but it is needed to size the guest; mount the machine's "
        "own /proc"
    )


def default_memory_byte() -> int:
    """A guest's memory when nothing better is known: half of what is available, 8 GiB at most, taken as it is used."""
    return min(8 << 30, available_memory_byte() // 2)


def _left_in_cgroup_byte() -> int | None:
    """Of the cgroup at the root of /sys/fs/cgroup, in a container the container's own; None without a limit."""
    for limit, usage in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            text = (Path("/sys/fs/cgroup") / limit).read_text().strip()
            return None if text == "max" else int(text) - int((Path("/sys/fs/cgroup") / usage).read_text())
        except OSError:
            continue
    return None


def _can_hold(folder: Path, memory_byte: int) -> bool:
    if not os.access(folder, os.W_OK | os.X_OK):
        return False
    stat = os.statvfs(folder)
    return stat.f_bavail * stat.f_frsize >= memory_byte and not stat.f_flag & os.ST_NOEXEC
