"""What nodes are told of themselves while the sky moves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from isl_emu.scenario.matching import Satellites, unmatched
from isl_emu.scenario.quantities import Record


class Metadata(Record):
    """Which nodes are told where they are, whom they see and what comes next, by HTTP and in a file.

    `nodes` are satellites and stations, by name or pattern, or "all".
    """

    nodes: Satellites


def metadata_contradictions(metadata: Metadata, nodes: Sequence[str]) -> Iterator[str]:
    """Names that no node has."""
    yield from unmatched("metadata.nodes", metadata.nodes, nodes, "node")
