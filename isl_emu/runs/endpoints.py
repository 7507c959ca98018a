"""Where the nodes of a live run are, and on which ports programs of ours listen in them.

The nodes are in one file, which all processes of the run read; the ports stand here, so that no two want the same one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from isl_emu.files import write_json

FILE = "endpoints.json"  # in a run's journal

MODEL_PORT = 8080  # of a model server, on every satellite that serves
WORDS_PORT = 8081  # of the real server behind that one, where its words are real and the time is a board's
TRANSFER_PORT = 8090  # where nodes offer the pieces of a model on its way into orbit
OBSERVATION_PORT = 8095  # where satellites take images that others took, and stations answers
FIRST_CACHE_PORT = 8100  # where the first series of KV hand-overs offers its caches; further ones count up
FIRST_SPLIT_PORT = 5100  # of the first split model; further ones count up
FIRST_STORE_PORT, STORE_PORTS = 20_000, 1_000  # where real training jobs meet: this many for each
FIRST_TRAINING_PORT = 29_500  # of the first training job; the port that PyTorch's examples use
METADATA_PORT = 80  # where a node asks of itself
METADATA_ADDRESSES = "169.254.169.254", "fd00:ec2::254"  # of its loopback; those of Amazon's clouds
# Between a gateway and the machine's own network: the prefix that RFC 7335 gives to such translators, of which the
# gateway's own interface has the first address.
OUTSIDE, OUTSIDE_MACHINE, OUTSIDE_NAMES = "192.0.0.2/29", "192.0.0.1", "192.0.0.3"
# The same by IPv6: a local network (RFC 4193) beside that of the nodes' addresses.
OUTSIDE6, OUTSIDE6_MACHINE, OUTSIDE6_NAMES = "fd00:0:0:c000::2/64", "fd00:0:0:c000::1", "fd00:0:0:c000::3"
PROBE_PORT = 862  # that of simple two-way active measurement (RFC 8762), on which nobody else listens in a node


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
