"""Where the nodes of a live run are."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Endpoint:
    """Where a node is: its namespace, its address, and its model server's port if it has one."""

    netns: str
    address: str
    port: int | None


def read_endpoints(path: Path) -> dict[str, Endpoint]:
    """The nodes of a run, from endpoints.json."""
    return {name: Endpoint(**entry) for name, entry in json.loads(path.read_text()).items()}
