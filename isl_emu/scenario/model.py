"""A whole scenario: frozen records, one per TOML table.

Attributes carry the inner unit in their name (`altitude_km`); in the TOML text the same key is written without it and
with the unit in the value (``altitude = "525 km"``). `docs/scenario.md` describes the format for users.
Nothing here looks at the machine: a scenario that is valid on one computer is valid on all.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from ipaddress import IPv4Interface, IPv4Network, IPv6Network

from pydantic import Field

from isl_emu.errors import visible
from isl_emu.limits import PROBES
from isl_emu.scenario.boards import BOARDS, Board
from isl_emu.scenario.captures import Capture, capture_contradictions
from isl_emu.scenario.compute import Compute, Groups, compute_contradictions
from isl_emu.scenario.constellation import Constellation, Time, constellation_contradictions
from isl_emu.scenario.faults import Fault, expected_faults, fault_contradictions
from isl_emu.scenario.ground import GroundStation
from isl_emu.scenario.ground_network import Place, Terrestrial
from isl_emu.scenario.hardware import Hardware, hardware_contradictions
from isl_emu.scenario.kv_handover import KvHandover, kv_contradictions
from isl_emu.scenario.lasers import InterShell, LaserLinks
from isl_emu.scenario.matching import Satellites, matching, unpaired
from isl_emu.scenario.metadata import Metadata, metadata_contradictions
from isl_emu.scenario.nodes import LinkSettings, NodeSettings, link_settings, node_contradictions, settings_by_node
from isl_emu.scenario.observation import Observation, observation_contradictions
from isl_emu.scenario.power import Power, power_contradictions, power_groups, power_parts
from isl_emu.scenario.programs import Program, UserWorkload, program_contradictions
from isl_emu.scenario.quantities import Duration, NodePairs, Record
from isl_emu.scenario.questions import Questions, question_contradictions
from isl_emu.scenario.routing import DisjointPaths, Routing, routing_contradictions
from isl_emu.scenario.space import Orbits, Satellite, Shell, Walker
from isl_emu.scenario.split import Split, split_contradictions
from isl_emu.scenario.training import Training, training_contradictions
from isl_emu.scenario.uplink import Uplink, uplink_contradictions
from isl_emu.scenario.way_out import WayOut, way_out_contradictions
from isl_emu.units import DURATION_NS, format_quantity

__all__ = [
    "Capture",
    "Compute",
    "Constellation",
    "DisjointPaths",
    "Fault",
    "FidelityLimits",
    "GroundStation",
    "InterShell",
    "LaserLinks",
    "Hardware",
    "Metadata",
    "NodeSettings",
    "Observation",
    "Orbits",
    "Place",
    "Power",
    "Counters",
    "Probes",
    "Program",
    "Questions",
    "Routing",
    "Satellite",
    "Scenario",
    "Shell",
    "Split",
    "Terrestrial",
    "Time",
    "Uplink",
    "UserWorkload",
    "Walker",
    "WayOut",
]


class Probes(Record):
    """One-way probes, in both directions of each pair, that compare measured with planned delay along the run."""

    interval_ns: Duration = Field(alias="interval", default=1_000_000_000)
    pairs: NodePairs = ()


class Counters(Record):
    """How often the counters of each end of a link are sampled; once more at the end of the run."""

    interval_ns: Duration = Field(alias="interval", default=10_000_000_000)


class FidelityLimits(Record):
    """A run beyond any of these is marked invalid, with the reason."""

    lateness_p99_ns: Duration = Field(alias="lateness_p99", default=250_000_000)
    probe_error_per_hop_p50_ns: Duration = Field(alias="probe_error_per_hop_p50", default=250_000)
    probe_error_p95_ns: Duration = Field(alias="probe_error_p95", default=10_000_000)
    cpu_saturated_ratio: float = Field(ge=0.0, le=1.0, default=0.1)
    cpu_waiting_ratio: float = Field(ge=0.0, le=1.0, default=0.2)
    token_lateness_p99_ns: Duration = Field(alias="token_lateness_p99", default=50_000_000)
    throttled_error_ratio: float = Field(ge=0.0, le=1.0, default=0.2)


class Scenario(Constellation):
    """A complete experiment: a constellation, how its traffic is routed, and all that the run carries."""

    routing: Routing = Routing()
    fault: tuple[Fault, ...] = ()
    compute: Groups = ()
    split: tuple[Split, ...] = ()
    kv_handover: tuple[KvHandover, ...] = ()
    power: tuple[Power, ...] = ()
    observation: tuple[Observation, ...] = ()
    uplink: Uplink | None = None
    questions: Questions | None = None
    program: tuple[Program, ...] = ()
    workload: tuple[UserWorkload, ...] = ()
    metadata: Metadata | None = None
    node: tuple[NodeSettings, ...] = ()
    way_out: WayOut | None = None
    hardware: tuple[Hardware, ...] = ()
    training: tuple[Training, ...] = ()
    probes: Probes = Probes()
    capture: tuple[Capture, ...] = ()
    counters: Counters = Counters()
    fidelity: FidelityLimits = FidelityLimits()

    @property
    def computing_satellites(self) -> tuple[str, ...]:
        """Names of the satellites that run a model server, in node order."""
        names = self.satellite_names
        found = {name for group in self.compute for name in matching(group.satellites, names)}
        return tuple(name for name in names if name in found)

    @property
    def serving_satellites(self) -> tuple[str, ...]:
        """Names of the satellites that can be asked: those that run a model server, and the heads of split models."""
        names = self.satellite_names
        heads = (name for split in self.split for name in split.members(names)[:1])
        found = {*self.computing_satellites, *heads}
        return tuple(name for name in names if name in found)

    def compute_of(self, satellite: str) -> Compute | None:
        """The group that a satellite is in; None if it runs no model server."""
        return next((group for group in self.compute if matching(group.satellites, (satellite,))), None)

    @property
    def uplinked_satellites(self) -> tuple[str, ...]:
        """Names of the satellites that get their model during the run, in node order."""
        return self.uplink.receivers(self.satellite_names, self.compute) if self.uplink else ()

    @property
    def uplink_stations(self) -> tuple[str, ...]:
        """Names of the stations that have the file to send up."""
        if self.uplink is None:
            return ()
        return self.station_names if self.uplink.stations == "all" else self.uplink.stations

    @property
    def asking_stations(self) -> tuple[str, ...]:
        """Names of the stations from which questions come."""
        return self.questions.asking(self.station_names) if self.questions else ()

    @property
    def visited_nodes(self) -> tuple[str, ...]:
        """Names of the nodes in which a user's programs and workloads are."""
        programs = (program.node for program in self.program)
        return (*programs, *(node for workload in self.workload for node in workload.nodes))

    @property
    def informed_nodes(self) -> tuple[str, ...]:
        """Names of the nodes that are told of themselves, in node order."""
        return matching(self.metadata.nodes, self.node_names) if self.metadata else ()

    @property
    def link_settings(self) -> tuple[LinkSettings, ...]:
        """What tables of nodes say of links, in their order; the later ones go before."""
        return link_settings(self.node, self.node_names)

    def image_of(self, node: str) -> str | None:
        """The image that the user's programs see in a node, as the scenario names it; None if it has none."""
        settings = settings_by_node(self.node, (node,)).get(node)
        return settings.image if settings else None

    @property
    def own_programs(self) -> dict[str, tuple[str, ...]]:
        """The nodes of each of a user's programs, then workloads, by its name."""
        nodes = {program.name: (program.node,) for program in self.program}
        return {**nodes, **{workload.name: workload.nodes for workload in self.workload}}

    @property
    def watched_pairs(self) -> tuple[tuple[str, str], ...]:
        """The pairs of nodes between which the scenario itself wants to know the delay."""
        return self.probes.pairs

    @property
    def least_context_tokens(self) -> int:
        """The smallest context among the models that answer questions."""
        return min([*(group.context_tokens for group in self.compute), *(split.context_tokens for split in self.split)])

    @property
    def users_by_station(self) -> dict[str, float]:
        """How users are spread over the asking stations: any positive numbers."""
        asking, users = self.asking_stations, self.questions.users if self.questions else "equal"
        if users == "population":
            return {station.name: station.population or 0 for station in self.station if station.name in asking}
        return {name: users[name] if isinstance(users, dict) else 1.0 for name in asking}

    @property
    def power_by_satellite(self) -> dict[str, Power]:
        """Panel, battery and radiator of each satellite that has them."""
        numbers = power_groups(self.power, self.satellite_names)
        return {name: self.power[number] for name, number in numbers.items()}

    @property
    def power_parts(self) -> dict[str, set[str]]:
        """The satellites with power in parts of the same orbits and power, by a name for the part; last, all of them.

        A part is a shell, or one `[[power]]` group of it where it has several. If there is one part only, it is all.
        """
        return power_parts(self, self.power)

    @property
    def boards(self) -> dict[str, Board]:
        """The board of each satellite that has one: of its `[compute]`, else training, split, or `[[power]]`."""
        named: list[tuple[Satellites, str | None]] = [
            *((group.satellites, group.board) for group in self.power),
            *((split.satellites, split.board) for split in self.split),
            *((one.computers(self.satellite_names), one.board) for one in self.observation),
            *((job.satellites, job.board) for job in self.training),
            *((group.satellites, group.board) for group in self.compute),
        ]
        names = self.satellite_names
        return {name: BOARDS[board] for satellites, board in named if board for name in matching(satellites, names)}

    @property
    def computing(self) -> list[tuple[str, Satellites]]:
        """Everything that computes on satellites: where it stands in the scenario, and its list of satellites."""
        several = len(self.compute) > 1
        return [
            *((f"compute[{n}]" if several else "compute", group.satellites) for n, group in enumerate(self.compute)),
            *((f"training[{n}]", job.satellites) for n, job in enumerate(self.training)),
            *((f"split[{n}]", split.satellites) for n, split in enumerate(self.split)),
            *((f"observation[{n}]", one.computers(self.satellite_names)) for n, one in enumerate(self.observation)),
        ]

    @property
    def foreign(self) -> tuple[str, ...]:
        """What it runs, imports or asks that is not isl-emu's own: one line each, with its key."""
        walkers = [shell for shell in self.shell if shell.lasers]
        functions = {
            "routing.policy": self.routing.policy,
            **{f"shell.{shell.name}.lasers.topology": shell.lasers.topology for shell in walkers if shell.lasers},
            **{f"inter_shell[{n}].topology": links.topology for n, links in enumerate(self.inter_shell)},
            "questions.target": self.questions.target if self.questions else "",
            **{f"workload.{workload.name}.function": workload.function for workload in self.workload},
            **{f"observation.{one.name}.placement": one.placement for one in self.observation},
        }
        servers = [(f"compute[{n}]", group) for n, group in enumerate(self.compute)]
        found = (
            *(f"{key}: imports {name}" for key, name in functions.items() if ":" in name),
            *(f"node[{n}].image: unpacks {table.image}" for n, table in enumerate(self.node) if table.image),
            *(f"program.{program.name}: runs {program.told}" for program in self.program),
            *(f"program.{program.name}: changes routes and links" for program in self.program if program.may_route),
            *(
                [f"way_out.gateway: leads to this machine's network from {self.way_out.gateway}"]
                if self.way_out
                else ()
            ),
            *(f"hardware.interface: gives {one.node} this machine's {one.interface}" for one in self.hardware),
            *(f"{key}.command: runs {group.command}" for key, group in servers if group.command),
            *(f"observation.{one.name}: runs {shlex.join(one.command)}" for one in self.observation if one.command),
            *(f"{key}.url: asks {group.url}" for key, group in servers if group.url),
            *(f"{key}.key_variable: sends it ${group.key_variable}" for key, group in servers if group.key_variable),
        )
        return tuple(visible(line, kept="") for line in found)

    @property
    def faults_expected(self) -> tuple[str, ...]:
        """How often each fault strikes in a run: one line each."""
        serving, own = self.computing_satellites, tuple(self.own_programs)
        return tuple(expected_faults(fault, self, serving, own) for fault in self.fault)

    @property
    def captures_told(self) -> tuple[str, ...]:
        """What it captures: one line each."""
        return tuple(capture.told() for capture in self.capture)

    @property
    def has_programs(self) -> bool:
        """Whether it has programs of its own in nodes: commands, workloads, servers or images."""
        images = any(table.image for table in self.node)
        commands = [*(group.command for group in self.compute), *(one.command for one in self.observation)]
        return bool(self.program or self.workload or images or any(commands))

    @property
    def leading_out(self) -> tuple[str, ...]:
        """Names of the nodes that lead to the machine's own network."""
        return (self.way_out.gateway,) if self.way_out else ()

    @property
    def wanted_interfaces(self) -> tuple[str, ...]:
        """Names of the machine's interfaces that nodes are to have."""
        return tuple(table.interface for table in self.hardware)

    @property
    def beyond(self) -> tuple[tuple[str, IPv4Network | IPv6Network], ...]:
        """Networks that are no nodes', each with the node behind which it is."""
        anywhere = IPv4Network("0.0.0.0/0"), IPv6Network("::/0")
        out = ((name, network) for name in self.leading_out for network in anywhere)
        addresses = ((table.node, table.address) for table in self.hardware if table.address)
        return (*out, *((node, IPv4Interface(address).network) for node, address in addresses))

    @property
    def keys_sent(self) -> tuple[str, ...]:
        """Names of the environment variables whose contents it sends to a URL."""
        return tuple(dict.fromkeys(group.key_variable for group in self.compute if group.key_variable))


def contradictions(scenario: Scenario) -> Iterator[str]:
    """Problems that only show when the parts of a scenario are seen together, one sentence each."""
    satellites, nodes = scenario.satellite_names, set(scenario.node_names)
    yield from constellation_contradictions(scenario)
    yield from routing_contradictions(scenario.routing, nodes, scenario.time.slowdown)
    if scenario.routing.forwarding != "addresses" and (
        scenario.way_out or any(one.address for one in scenario.hardware)
    ):
        yield (
            f'routing.forwarding is "{scenario.routing.forwarding}", which leads to nodes alone, but a way out and the '
            'addresses of hardware are beyond one; set it to "addresses"'
        )
    yield from compute_contradictions(scenario.compute, satellites)
    yield from split_contradictions(scenario.split, satellites, scenario.computing_satellites)
    yield from kv_contradictions(scenario.kv_handover, satellites, scenario.compute_of)
    if scenario.uplink:
        yield from uplink_contradictions(scenario.uplink, scenario, scenario.compute)
    yield from power_contradictions(
        scenario.power, satellites, scenario.boards, scenario.computing, scenario.visited_nodes, scenario.compute
    )
    yield from unpaired("probes.pairs", "a probe", scenario.probes.pairs, nodes)
    probes = 2 * len(scenario.probes.pairs) * scenario.time.duration_ns / scenario.probes.interval_ns
    if excess := PROBES.excess(probes):
        yield f"probes.interval is {format_quantity(scenario.probes.interval_ns, DURATION_NS)}, which {excess}"
    yield from node_contradictions(scenario.node, scenario.node_names)
    if scenario.metadata:
        yield from metadata_contradictions(scenario.metadata, scenario.node_names)
    if scenario.way_out:
        yield from way_out_contradictions(scenario.way_out, [*scenario.station_names, *scenario.place_names])
    yield from hardware_contradictions(scenario.hardware, scenario.node_names)
    yield from program_contradictions(
        scenario.program, scenario.workload, nodes, scenario.time.duration_ns,
        {name for name in nodes if scenario.image_of(name)}, scenario.routing.policy == "none",
    )  # fmt: skip
    if scenario.questions:
        yield from question_contradictions(
            scenario.questions, scenario.station, scenario.serving_satellites, scenario.time.duration_ns,
            [*(group.server for group in scenario.compute), *("split" for _ in scenario.split)],
        )  # fmt: skip
    yield from observation_contradictions(scenario.observation, scenario)
    yield from capture_contradictions(scenario.capture, scenario.node_names)
    yield from training_contradictions(scenario, scenario.training)
    yield from fault_contradictions(
        scenario.fault, scenario, scenario.computing_satellites, tuple(scenario.own_programs)
    )
