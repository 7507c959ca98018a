"""What is to be spread over the network in a run, and who gets it from whom: what `transfer_plan.json` holds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from isl_emu.parts.uplink.passes import Pass
from isl_emu.parts.uplink.pieces import Manifest

FILE = "transfer_plan.json"  # in a run's journal


@dataclass(frozen=True)
class Receiver:
    """How one satellite gets the file.

    Args:
        kind: "uplink", "ring", "tree" or "swarm".
        sources: whom it fetches from, the best first.
        passes: of an uplink, when from which station.
    """

    kind: str
    sources: tuple[str, ...]
    passes: tuple[Pass, ...] = ()


@dataclass(frozen=True)
class TransferPlan:
    """What is to be spread, and by whom; a JSON file for the nodes that take part.

    Args:
        file: on this machine; what the holders give away from the start, and what all have in the end.
        holders: the stations.
        receivers: by satellite.
        begin_ns: when it begins, since instant 0.
        stall_ns: how long a connection is kept on which nothing comes.
        planned_end_ns: when the first satellite would have it at the planned rates; None if not in this run.
    """

    file: Path
    manifest: Manifest
    holders: tuple[str, ...]
    receivers: Mapping[str, Receiver]
    begin_ns: int
    stall_ns: int
    seed: int
    planned_end_ns: int | None

    @property
    def first(self) -> str:
        """The satellite that gets it from the ground."""
        return next(name for name, receiver in self.receivers.items() if receiver.kind == "uplink")

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return {**asdict(self), "file": str(self.file)}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> TransferPlan:
        """What `to_json` gave."""
        receivers = {name: _receiver(**entry) for name, entry in record["receivers"].items()}
        manifest = Manifest.from_json(record["manifest"])
        known = {"file": Path(record["file"]), "manifest": manifest, "receivers": receivers}
        return cls(**{**record, **known, "holders": tuple(record["holders"])})


def _receiver(kind: str, sources: Sequence[str], passes: Sequence[dict[str, Any]]) -> Receiver:
    return Receiver(kind, tuple(sources), tuple(Pass(**each) for each in passes))


def read_transfer_plan(journal: Path) -> TransferPlan:
    """The plan of the run whose journal this is."""
    return TransferPlan.from_json(json.loads((journal / FILE).read_text()))
