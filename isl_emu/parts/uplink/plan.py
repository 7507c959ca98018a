"""What is to be spread over the network in a run, and who gets it from whom: what `transfer_plan.json` holds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from isl_emu.parts.uplink.pieces import Manifest

FILE = "transfer_plan.json"  # in a run's journal
# further journals, one line each: an attempt; a satellite that has all of the file; one that will not serve; a piece
# that a satellite has verified, which is on its disk then
ATTEMPTS, HELD, UNSERVED, VERIFIED = "transfers", "held", "unserved", "verified"


@dataclass(frozen=True)
class StationPass:
    """A time during which a station can send to the satellite without a break, over whichever satellites."""

    station: str
    start_ns: int
    end_ns: int


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
    passes: tuple[StationPass, ...] = ()


@dataclass(frozen=True)
class TransferPlan:
    """What is to be spread, and by whom; a JSON file for the nodes that take part.

    Args:
        file: on this machine; what the stations give away from the start, and what all have in the end.
        receivers: by satellite.
        begin_ns: when it begins, since instant 0.
        stall_ns: how long a connection is kept on which nothing comes.
        planned_end_ns: when the first satellite would have it at the planned rates; None if not in this run.
    """

    file: Path
    manifest: Manifest
    receivers: Mapping[str, Receiver]
    begin_ns: int
    stall_ns: int
    seed: int
    planned_end_ns: int | None

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return {**asdict(self), "file": str(self.file)}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> TransferPlan:
        """What `to_json` gave."""
        receivers = {
            name: Receiver(
                each["kind"], tuple(each["sources"]), tuple(StationPass(**planned) for planned in each["passes"])
            )
            for name, each in record["receivers"].items()
        }
        manifest = Manifest.from_json(record["manifest"])
        known = {"file": Path(record["file"]), "manifest": manifest, "receivers": receivers}
        return cls(**{**record, **known})


def read_transfer_plan(journal: Path) -> TransferPlan:
    """The plan of the run whose journal this is."""
    return TransferPlan.from_json(json.loads((journal / FILE).read_text()))
