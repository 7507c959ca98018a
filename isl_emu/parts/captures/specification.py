"""What a capture is to do, as the process that does it is told: JSON, made of the scenario or of a wish by hand."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from isl_emu.errors import ScenarioError
from isl_emu.linkplan.plan import LinkKind, LinkPlan
from isl_emu.network.naming import alias_names, ipv4_address, ipv6_address, wire
from isl_emu.nodes.filters import Instruction
from isl_emu.parts.captures.filters import compile_filter
from isl_emu.routing.forwarding import RoutePlan
from isl_emu.scenario.captures import Capture

FOLDER = "captures"  # in the results
SPECIFICATIONS = "captures.json"  # in the journal folder: those of the scenario, and what is in all of their files


@dataclass(frozen=True)
class CapturedEnd:
    """A link end that is captured, and which of its packets: those that are sent from there, those that arrive."""

    end: int
    node: str
    peer: str
    interface: str
    index: int
    kind: str
    speed_bit_s: int
    sent: bool
    arrived: bool


@dataclass(frozen=True)
class Specification:
    """One capture.

    Args:
        program: of the kernel's; see `filters`.
        for_ns: how long it goes on once it has begun; None until the run ends.
    """

    name: str
    place: str
    filter: str
    program: tuple[Instruction, ...]
    snap_byte: int
    file_size_byte: int
    files: int
    packets: int | None
    ends: tuple[CapturedEnd, ...]
    for_ns: int | None = None

    def as_json(self) -> dict[str, Any]:
        """What `of_json` makes the same of."""
        return asdict(self)

    @classmethod
    def of_json(cls, record: Mapping[str, Any]) -> Specification:
        """What `as_json` made."""
        program = tuple((op, yes, no, value) for op, yes, no, value in record["program"])
        ends = tuple(CapturedEnd(**one) for one in record["ends"])
        return cls(**{**record, "program": program, "ends": ends})


def specified(capture: Capture, plan: LinkPlan, for_ns: int | None = None) -> Specification:
    """What a capture is to do in a run of a plan.

    Raises:
        ScenarioError: the plan never has the link, or libpcap does not understand the filter.
        MachineError: there is no libpcap.
    """
    addresses = {name: ipv4_address(number) for number, name in enumerate(plan.nodes.names)}
    where = f"capture {capture.name}"
    program = compile_filter(f"{where}: filter", capture.filter, addresses, capture.snap_byte)
    limits = capture.snap_byte, capture.file_size_byte, capture.files, capture.packets
    ends = tuple(_ends(where, capture, plan))
    return Specification(capture.name, capture.place, capture.filter, tuple(program), *limits, ends, for_ns)


def _ends(where: str, capture: Capture, plan: LinkPlan) -> Iterator[CapturedEnd]:
    links, names = plan.links, plan.nodes.names
    if capture.link:
        first, second = map(plan.nodes.index, capture.link)
        found = np.flatnonzero((links.a == min(first, second)) & (links.b == max(first, second)))
    else:
        first = plan.nodes.index(capture.node or "")
        found = np.flatnonzero((links.a == first) | (links.b == first))
    if not len(found):
        raise ScenarioError(
            f"{where}: is at {capture.place}, but this plan never has such a link; see `isl-emu plan`, and name another"
        )
    wiring = wire(plan)
    for link in found.tolist():
        _, rows = plan.rows_of_link(link)
        for end in (2 * link, 2 * link + 1):
            at_first = int(wiring.node[end]) == first
            if capture.node and not at_first:
                continue
            rates = (rows.rate_ab_bit_s, rows.rate_ba_bit_s)[end % 2]
            yield CapturedEnd(
                end,
                names[int(wiring.node[end])],
                names[int(wiring.peer[end])],
                wiring.interface[end],
                int(wiring.interface_index[end]),
                LinkKind(int(links.kind[link])).name.lower().replace("_", "-"),
                int(rates.max(initial=0) * plan.rate_scale),
                sent=capture.direction == "both" or at_first == (capture.direction == "there"),
                arrived=capture.direction == "both" or at_first == (capture.direction == "back"),
            )


def headings(scenario_name: str, seed: int, plan: LinkPlan) -> tuple[str, ...]:
    """What stands at the beginning of each file of a run, but for its clock."""
    return (
        f"scenario {scenario_name}, sha256 {hashlib.sha256(plan.scenario_toml.encode()).hexdigest()}",
        f"plan sha256 {plan.digest()}",
        f"seed {seed}",
        f"instant 0 is {plan.grid.start:%Y-%m-%dT%H:%M:%S.%fZ}",
    )


def names_of(plan: LinkPlan, routes: RoutePlan) -> dict[str, Sequence[str]]:
    """The addresses of all nodes and aliases, by name."""
    names = [*plan.nodes.names, *alias_names(plan.nodes.names, routes.aliases)]
    return {name: (ipv4_address(number), ipv6_address(number)) for number, name in enumerate(names)}
