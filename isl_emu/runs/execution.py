"""What the live part of a run writes down about itself: the record in its journal that the results are judged by."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from isl_emu.files import read_json, write_json

INTERRUPTED_BY_USER = "it was interrupted by the user"  # as an error


@dataclass
class Execution:
    """How a run was carried out; filled in as it goes on, and null where it did not get that far.

    Args:
        error: why it did not come to its end.
        clock: "exact" or "real".
        kernel: the kernel that carried the network, and the machine under it.
        congestion_control: of TCP in the nodes: by "default", and in nodes that have another, by name.
        phases_s: how long each phase took, by the machine's clock.
        bias_ns: what netem adds to each delay by itself, and is taken off; `residue_ns` what is left of it.
        calibration: how that was found.
        t0_monotonic_ns: instant 0, on the machine's clock without slow motion; `t0_utc` the same in UTC (ISO 8601).
        ended_ns: where the run ended in order.
        lost_files: of each node, what its programs have written outside of the folder that is kept: `count`, and the
            first `paths`.
        mismatches: settings that differed from the plan when the kernel was read back.
        dropped_packets: on all links in the emulated time; `marked_packets` those that managed queues marked.
        carried_packets: that nodes received from instant 0 on, so one counts at each hop; only in exact time, since
            a machine's own kernel counts everybody's.
    """

    error: str | None = None
    clock: str = "real"
    kernel: Mapping[str, Any] = field(default_factory=dict)
    congestion_control: dict[str, str] = field(default_factory=dict)
    phases_s: dict[str, float] = field(default_factory=dict)
    bias_ns: float | None = None
    residue_ns: float | None = None
    calibration: Mapping[str, Any] | None = None
    t0_monotonic_ns: int | None = None
    t0_utc: str | None = None
    ended_ns: int | None = None
    lost_files: Mapping[str, Any] = field(default_factory=dict)
    mismatches: list[str] | None = None
    dropped_packets: int | None = None
    marked_packets: int | None = None
    carried_packets: int | None = None

    def to_json(self) -> dict[str, Any]:
        """The record as JSON has it."""
        return asdict(self)

    def write(self, path: Path) -> None:
        """Write it in one step."""
        write_json(path, self.to_json())

    @classmethod
    def read(cls, path: Path) -> Execution | None:
        """The record in a file; None if the run was killed before it wrote one."""
        found = read_json(path)
        known = {item.name for item in fields(cls)}
        return None if found is None else cls(**{key: value for key, value in found.items() if key in known})


def kernel_facts() -> dict[str, Any]:
    """The kernel and the machine under it, as this process sees them: call it where the network is built."""
    return {
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "cpu_model": cpu_model(_text(Path("/proc/cpuinfo"))),
        "cpus": os.cpu_count(),
        "cpus_usable": len(os.sched_getaffinity(0)),
        "memory_byte": memory_byte(_text(Path("/proc/meminfo"))),
        "congestion_control": _word(Path("/proc/sys/net/ipv4/tcp_congestion_control")),
        "clock_source": _word(Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")),
    }


def cpu_model(cpuinfo: str) -> str | None:
    """The processor's name in the text of /proc/cpuinfo."""
    match = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return match.group(1).strip() if match else None


def memory_byte(meminfo: str) -> int | None:
    """The memory in the text of /proc/meminfo, whose kB are 1,024 bytes."""
    match = re.search(r"^MemTotal:\s*(\d+) kB$", meminfo, re.MULTILINE)
    return int(match.group(1)) * 1024 if match else None


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _word(path: Path) -> str | None:
    return _text(path).strip() or None
