"""What nodes are like inside: their limits, and the settings of their network that are theirs alone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, NamedTuple

from pydantic import AfterValidator, Field, model_validator

from isl_emu.scenario.matching import Satellites, matching, unmatched
from isl_emu.scenario.quantities import Duration, Mtu, Record, Size
from isl_emu.scenario.queueing import Aqm

MOST_PIDS = 2_048  # processes and threads of any node with a container
CONGESTION_CONTROL = "net.ipv4.tcp_congestion_control"
# Settings that each network namespace has for itself, and by which no node gets more than its links give it.
ALLOWED_SYSCTLS = re.compile(
    r"net\.(ipv4\.(tcp_(?!congestion_control|allowed|available|fastopen_key|ehash|mem$|max_orphans)[a-z0-9_]+"
    r"|ip_local_port_range|ip_unprivileged_port_start|ping_group_range|udp_[rw]mem_min|ip_no_pmtu_disc)"
    r"|core\.somaxconn)"
)


def _sysctls(given: dict[str, str]) -> dict[str, str]:
    for name, value in given.items():
        if not ALLOWED_SYSCTLS.fullmatch(name):
            own = "set the key congestion_control" if name == CONGESTION_CONTROL else "leave it out"
            raise ValueError(
                f"names {name!r}, but only those that docs/nodes.md lists, such as net.ipv4.tcp_sack, are each node's "
                f"own; {own}"
            )
        if not re.fullmatch(r"-?[0-9]+([ \t]+-?[0-9]+)*", value):
            raise ValueError(f"sets {name} to {value!r}, but its value is one number or several; write them so")
    return given


def _algorithm(name: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,14}", name):
        raise ValueError(f"is {name!r}, but Linux names them in lower case, such as cubic and bbr; write it so")
    return name


def _image(path: str) -> str:
    if "://" in path:
        raise ValueError(
            f"is {path!r}, but no registry is asked, only files are read; copy it into the folder where isl-emu is "
            f"called (skopeo copy {path} oci:images/NAME) and name that"
        )
    return path


class NodeSettings(Record):
    """Limits and settings of some nodes, by name or pattern; of several tables that name a node the last one holds.

    `cpus`, `memory`, `pids`: of a container that each of the nodes then has, for all that runs there, in place of the
    sum of what its programs ask for. `image`: what the user's programs there see in place of the machine's files, a
    root folder, a tarball, or an OCI layout or archive, from the folder in which isl-emu is called.
    `congestion_control`: of TCP, in place of cubic. `queue`, `aqm`, `mtu`: of all links of these nodes, both ends, in
    place of what lasers, stations and lines say.
    """

    nodes: Satellites
    image: (
        Annotated[str, Field(min_length=1, max_length=4_096, pattern=r"^[^\x00]+$"), AfterValidator(_image)] | None
    ) = None
    cpus: float | None = Field(gt=0.0, le=64.0, default=None)
    memory_byte: Size | None = Field(alias="memory", default=None)
    pids: int | None = Field(ge=16, le=MOST_PIDS, default=None)
    queue_ns: Duration | None = Field(alias="queue", default=None)
    aqm: Aqm | None = None
    mtu_byte: Mtu | None = Field(alias="mtu", default=None)
    congestion_control: Annotated[str, AfterValidator(_algorithm)] | None = None
    sysctls: Annotated[dict[str, str], AfterValidator(_sysctls)] = Field(
        examples=[{"net.ipv4.tcp_sack": "0"}], default_factory=dict
    )

    @model_validator(mode="after")
    def _something(self) -> NodeSettings:
        if not (self.limited or self.shapes_links or self.congestion_control or self.sysctls):
            raise ValueError("sets nothing, but a table of nodes is there to set something; set a key, or leave it out")
        return self

    @property
    def limited(self) -> bool:
        """Whether it limits its nodes or has an image for them, which takes a container in each."""
        return any(value is not None for value in (self.cpus, self.memory_byte, self.pids, self.image))

    @property
    def shapes_links(self) -> bool:
        """Whether it says how queues or packets are on links of its nodes."""
        return any(value is not None for value in (self.queue_ns, self.aqm, self.mtu_byte))


class LinkSettings(NamedTuple):
    """What a table says of the links of nodes for which it holds; None where it says nothing."""

    nodes: tuple[str, ...]
    queue_ns: int | None
    aqm: Aqm | None
    mtu_byte: int | None


def settings_by_node(tables: Sequence[NodeSettings], nodes: Sequence[str]) -> Mapping[str, NodeSettings]:
    """The table that holds for each node that any names."""
    return {name: table for table in tables for name in matching(table.nodes, nodes)}


def link_settings(tables: Sequence[NodeSettings], nodes: Sequence[str]) -> tuple[LinkSettings, ...]:
    """What tables say of links, in their order; of two whose nodes a link joins the later one holds."""
    held = settings_by_node(tables, nodes)
    named = ((tuple(name for name in held if held[name] is table), table) for table in tables if table.shapes_links)
    return tuple(LinkSettings(names, table.queue_ns, table.aqm, table.mtu_byte) for names, table in named if names)


def node_contradictions(tables: Sequence[NodeSettings], nodes: Sequence[str]) -> Iterator[str]:
    """Names that no node has."""
    for number, table in enumerate(tables):
        yield from unmatched(f"node[{number}].nodes", table.nodes, nodes, "node")
