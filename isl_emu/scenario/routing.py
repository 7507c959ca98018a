"""How paths are chosen: the policy for all traffic, and disjoint paths beside it for named pairs."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Literal

from pydantic import Field

from isl_emu.scenario.matching import repeated, unpaired
from isl_emu.scenario.quantities import Delay, Duration, NodePairs, Record, Size, UserFunction
from isl_emu.units import DURATION_NS, NS_PER_S, format_quantity

MOST_S = 65_535  # of an interval, in 16 bits
BGP_LEAST_S = 3
OF_NONE = ("addresses", "carrier", "daemon")  # keys that are for this policy alone


class DisjointPaths(Record):
    """Paths between named pairs that share no link, or no node either; each has an address of its own.

    `paths`: how many for each pair, the first being a shortest one together with the others.
    """

    pairs: NodePairs = Field(min_length=1)
    paths: int = Field(ge=2, le=8, default=2)
    separate: Literal["links", "nodes"] = "links"


PROTOCOL_NAMES = {"ospf": "OSPF", "isis": "IS-IS", "bgp": "BGP"}


class RoutingDaemon(Record):
    """FRR's daemons in each node: which protocol, and how soon it notices that a neighbour is gone.

    `hello`: between two greetings; `dead`: after how long without any a neighbour is gone. Both in whole seconds, as
    FRR counts them. `cost`: of a link, its mean planned delay or 1. `hint`: so long before the orbits end a link both
    its ends give it the highest cost; 0 for never. `memory`: the most that a node's daemons may take.
    """

    protocol: Literal["ospf", "isis", "bgp"] = "ospf"
    hello_ns: Duration = Field(alias="hello", default=1_000_000_000)
    dead_ns: Duration = Field(alias="dead", default=4_000_000_000)
    cost: Literal["delay", "hops"] = "delay"
    hint_ns: Delay = Field(alias="hint", default=0)
    memory_byte: Size = Field(alias="memory", default=128 << 20)


class Routing(Record):
    """How paths are chosen at each instant: a policy of ours, or a user's function as ``package.module:function``.

    `forwarding`: by addresses, each node on its own; or the node that sends writes the whole path into the packet, as
    segments ("srv6") or labels ("mpls"). `hysteresis`: of "stable". `equal_by`, `tolerance`, `next_hops`: of "ecmp". Of
    "none", which leaves routes to programs in the nodes: `addresses`, of the ends of links; `carrier`, whether an
    interface shows that its link is down; `daemon`.
    """

    policy: Literal["shortest-delay", "fewest-hops", "stable", "ecmp", "none"] | UserFunction = "shortest-delay"
    forwarding: Literal["addresses", "srv6", "mpls"] = "addresses"
    hysteresis_ns: Delay = Field(alias="hysteresis", default=1_000_000)
    equal_by: Literal["delay", "hops"] = "delay"
    tolerance_ns: Delay = Field(alias="tolerance", default=1_000_000)
    next_hops: int = Field(ge=2, le=16, default=4)
    disjoint: DisjointPaths | None = None
    addresses: Literal["numbered", "unnumbered"] = "numbered"
    carrier: bool = True
    daemon: RoutingDaemon | None = None


def routing_contradictions(routing: Routing, nodes: Collection[str], slowdown: float) -> Iterator[str]:
    """Problems that show beside the nodes, and beside each other."""
    if routing.policy != "none":
        usual = Routing()
        for key in (key for key in OF_NONE if getattr(routing, key) != getattr(usual, key)):
            yield f'routing.{key} is given, but it is for the policy "none"; write policy = "none", or leave it out'
    elif routing.disjoint:
        yield 'routing.disjoint is given, but the policy "none" makes no paths; leave it out, or choose another policy'
    if routing.forwarding != "addresses" and routing.policy in ("ecmp", "none"):
        why = "spreads flows in each node" if routing.policy == "ecmp" else "makes no paths"
        yield (
            f'routing.forwarding is "{routing.forwarding}", which is for one path from end to end, but the policy '
            f'"{routing.policy}" {why}; choose another policy, or forwarding = "addresses"'
        )
    if routing.daemon:
        yield from _daemon_contradictions(routing, routing.daemon, slowdown)
    if routing.disjoint:
        yield from unpaired("routing.disjoint.pairs", "a path", routing.disjoint.pairs, nodes)
        yield from repeated("routing.disjoint: pair", [" and ".join(sorted(pair)) for pair in routing.disjoint.pairs])


def _daemon_contradictions(routing: Routing, daemon: RoutingDaemon, slowdown: float) -> Iterator[str]:
    hello, dead = (format_quantity(one, DURATION_NS) for one in (daemon.hello_ns, daemon.dead_ns))
    for key, value_ns, text in (("hello", daemon.hello_ns, hello), ("dead", daemon.dead_ns, dead)):
        if value_ns % NS_PER_S or not NS_PER_S <= value_ns <= MOST_S * NS_PER_S:
            yield f"routing.daemon.{key} is {text}, but FRR counts whole seconds up to {MOST_S:,}; round it"
    if daemon.dead_ns < 2 * daemon.hello_ns:
        yield f"routing.daemon.dead is {dead}, but must be at least twice hello, which is {hello}; raise it"
    if daemon.protocol == "bgp" and daemon.dead_ns < BGP_LEAST_S * NS_PER_S:
        yield f"routing.daemon.dead is {dead}, but BGP holds for at least {BGP_LEAST_S} s (RFC 4271); raise it"
    if daemon.protocol == "bgp" and daemon.hint_ns:
        yield (
            "routing.daemon.hint is given, but is a cost of a link, and BGP knows none; leave it out, or use "
            'protocol = "ospf"'
        )
    if daemon.protocol == "bgp" and routing.addresses == "unnumbered":
        yield (
            'routing.addresses is "unnumbered", but BGP needs numbered links here; use "numbered", or protocol = "ospf"'
        )
    if slowdown != 1.0:
        yield (
            f"routing.daemon is given and time.slowdown is {slowdown:g}, but daemons count the machine's seconds; "
            "leave slowdown out"
        )
