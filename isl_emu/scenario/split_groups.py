"""Whether the split models of a scenario fit its satellites."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from isl_emu.scenario.matching import unmatched
from isl_emu.scenario.model import Scenario
from isl_emu.scenario.split import LEAST_SATELLITES, Split


def split_contradictions(scenario: Scenario) -> Iterator[str]:
    """Problems of the split models that show when all parts of a scenario are seen together."""
    names, heads = scenario.satellite_names, {name: "compute" for name in scenario.computing_satellites}
    for index, split in enumerate(scenario.split):
        where = f"split[{index}]"
        problems = [*unmatched(f"{where}.satellites", split.satellites, names), *_share_problems(where, split, names)]
        yield from problems
        if problems:
            continue
        if (head := split.head(names)) in heads:
            yield f"{where}.satellites begins with {head!r}, but it answers for {heads[head]} already; name another"
        heads[head] = where


def _share_problems(where: str, split: Split, names: Sequence[str]) -> Iterator[str]:
    count = len(split.members(names))
    if count < LEAST_SATELLITES:
        yield f"{where}.satellites means {count} satellite, but a model is split over at least two; name another"
    if split.layers and len(split.layers) != count:
        yield (
            f"{where}.layers has {len(split.layers)} numbers, but there are {count} satellites; "
            "give one for each, or none for even shares"
        )
    if any(number < 1 for number in split.layers):
        yield f"{where}.layers has {min(split.layers)}, but each satellite needs a layer at least; leave it out instead"
