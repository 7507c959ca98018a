"""Interfaces of the machine that nodes have: real hardware at the edge of the emulated network."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Sequence
from typing import Annotated

from pydantic import AfterValidator

from isl_emu.scenario.matching import repeated, unknown
from isl_emu.scenario.quantities import NodeName, Record

TAKEN = [  # by nodes, by links with numbers, and by a way out
    ipaddress.IPv4Network(network) for network in ("10.0.0.0/8", "172.16.0.0/12", "192.0.0.0/29", "127.0.0.0/8")
]


def _interface(name: str) -> str:
    if not re.fullmatch(r"[^\s/:\x00]{1,15}", name) or name in (".", ".."):
        raise ValueError(
            f"is {name!r}, but an interface's name has 15 characters at most, none a blank, a slash or a colon; "
            "`ip link` lists those of this machine"
        )
    return name


def _address(text: str) -> str:
    try:
        network = ipaddress.IPv4Interface(text).network
    except ValueError:
        network = None
    if network is None or "/" not in text or not 1 <= network.prefixlen <= 31:
        raise ValueError(f"is {text!r}, but it is an IPv4 address with its prefix; write it as 192.168.50.1/24")
    if taken := next((one for one in TAKEN if one.overlaps(network)), None):
        raise ValueError(f"is {text!r}, but {taken} is isl-emu's own; choose another network for the hardware")
    return text


class Hardware(Record):
    """An interface of the machine that a node has while the run lasts, and what is plugged in there.

    With an `address` the node is a router of the network behind it, which all nodes reach. It takes real time, root,
    and a user who allows that interface at the command line.
    """

    node: NodeName
    interface: Annotated[str, AfterValidator(_interface)]
    address: Annotated[str, AfterValidator(_address)] | None = None


def hardware_contradictions(tables: Sequence[Hardware], nodes: Sequence[str]) -> Iterator[str]:
    """Names that no node has, and interfaces or networks that are there twice."""
    for number, table in enumerate(tables):
        yield from unknown(f"hardware[{number}].node", [table.node], nodes, "node")
    yield from repeated("hardware: interface", [table.interface for table in tables])
    networks = [ipaddress.IPv4Interface(table.address).network for table in tables if table.address]
    for number, network in enumerate(networks):
        if other := next((one for one in networks[:number] if one.overlaps(network)), None):
            yield f"hardware: the networks {other} and {network} overlap, but each is behind one node; choose others"
