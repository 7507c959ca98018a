"""Where the nodes of a live run are: one file, which all processes of the run read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from isl_emu.files import write_json

FILE = "endpoints.json"  # in a run's journal


@dataclass(frozen=True)
class Endpoint:
    """Where a node is: its namespace, its address, and its model server's port if it has one."""

    netns: str
    address: str
    port: int | None


def write_endpoints(endpoints: Mapping[str, Endpoint], journal: Path) -> None:
    """Write where the nodes are, by name."""
    write_json(journal / FILE, {name: asdict(endpoint) for name, endpoint in endpoints.items()})


def read_endpoints(journal: Path) -> dict[str, Endpoint]:
    """The nodes of the run whose journal this is, by name."""
    return {name: Endpoint(**entry) for name, entry in json.loads((journal / FILE).read_text()).items()}
