"""Whether the uplink of a model fits the satellites that are to receive it."""

from __future__ import annotations

from collections.abc import Iterator

from isl_emu.scenario.matching import unmatched
from isl_emu.scenario.model import Scenario
from isl_emu.scenario.uplink import Uplink


def uplink_contradictions(scenario: Scenario) -> Iterator[str]:
    """What is wrong with an uplink beside the rest of its scenario."""
    uplink = scenario.uplink
    if uplink is None:
        return
    yield from unmatched("uplink.satellites", uplink.satellites, scenario.satellite_names)
    if not scenario.station:
        yield "uplink is given, but there is no ground station to send from; add a [[station]]"
    for name in () if uplink.stations == "all" else uplink.stations:
        if name not in scenario.station_names:
            yield f"uplink.stations names {name!r}, but there is no such ground station; choose an existing one"
    yield from _receiver_contradictions(scenario, uplink)


def _receiver_contradictions(scenario: Scenario, uplink: Uplink) -> Iterator[str]:
    receivers = scenario.uplinked_satellites
    groups = {name: scenario.compute_of(name) for name in receivers}
    if not receivers:
        yield 'uplink is given, but no satellite has a real server; add a [compute] group with server = "real"'
    for name, group in groups.items():
        if group is None:
            yield f"uplink.satellites has {name!r}, but it runs no server; leave it out, or add it to a [compute] group"
        elif group.server != "real":
            yield (
                f"uplink.satellites has {name!r}, whose server is {group.server}, but only a real one gets its model "
                "in the run; leave it out"
            )
    models = sorted({group.model for group in groups.values() if group})
    if len(models) > 1:
        yield f"uplink.satellites serve {' and '.join(map(repr, models))}, but one file is sent up; name those of one"
    if uplink.first != "earliest" and uplink.first not in receivers:
        yield f'uplink.first is {uplink.first!r}, but it is "earliest" or one of uplink.satellites; choose one of them'
