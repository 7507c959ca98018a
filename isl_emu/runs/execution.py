"""What the live part of a run writes down about itself: the record in its journal that the results are judged by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from isl_emu.files import read_json, write_json


@dataclass
class Execution:
    """How a run was carried out; filled in as it goes on, and null where it did not get that far.

    Args:
        error: why it did not come to its end.
        kernel: the kernel that carried the network, and the machine under it.
        phases_s: how long each phase took.
        bias_ns: what netem adds to each delay by itself, and is taken off; `residue_ns` what is left of it.
        calibration: how that was found.
        t0_monotonic_ns: instant 0, on the machine's clock without slow motion; `t0_utc` the same in UTC (ISO 8601).
        ended_ns: where the run ended in order.
        mismatches: settings that differed from the plan when the kernel was read back.
        dropped_packets: on all links in the emulated time; `marked_packets` those that managed queues marked.
    """

    error: str | None = None
    kernel: Mapping[str, Any] = field(default_factory=dict)
    phases_s: dict[str, float] = field(default_factory=dict)
    bias_ns: float | None = None
    residue_ns: float | None = None
    calibration: Mapping[str, Any] | None = None
    t0_monotonic_ns: int | None = None
    t0_utc: str | None = None
    ended_ns: int | None = None
    mismatches: list[str] | None = None
    dropped_packets: int | None = None
    marked_packets: int | None = None

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
