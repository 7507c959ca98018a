"""Files that satellites pass on by gossip: which satellites, how large, and where each begins."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pydantic import Field

from isl_emu.scenario.matching import Satellites, matching, unmatched
from isl_emu.scenario.quantities import NodeName, Record, Size


class Gossip(Record):
    """A file that one satellite has at the start, and that all others of a group are to get.

    Whoever has it offers it to the others, one after another and in an order of its own. `size`: as it is really sent,
    over rates that are scaled.
    """

    source: NodeName
    satellites: Satellites = "all"
    size_byte: Size = Field(alias="size", default=100_000)

    def members(self, names: Sequence[str]) -> tuple[str, ...]:
        """The satellites of the group, with the source."""
        found = {self.source, *matching(self.satellites, names)}
        return tuple(name for name in names if name in found)


def gossip_contradictions(groups: Sequence[Gossip], names: Sequence[str]) -> Iterator[str]:
    """Problems of the groups that show beside the satellites."""
    for index, group in enumerate(groups):
        where = f"gossip[{index}]"
        yield from unmatched(f"{where}.satellites", group.satellites, names)
        if group.source not in names:
            yield f"{where}.source names {group.source!r}, but there is no such satellite; choose an existing one"
