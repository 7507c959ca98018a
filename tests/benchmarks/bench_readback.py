"""What it costs to read the kernel's state back: counters, shaping and routes, by column and object by object.

    python -m isl_emu.machine.guest -- .venv/bin/python tests/benchmarks/bench_readback.py [--sizes 66,1584]

Needs root and netem, so it runs in the guest kernel or on a machine that has it. Both ways ask the kernel the same
questions and must find the same; "asking" is what the questions alone take, which no way can undercut. The networks are
Walker deltas with +Grid lasers and routes to 50 satellites. The fastest of several rounds counts.
"""

from __future__ import annotations

import argparse
import socket
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from isl_emu.linkplan.plan import LinkPlan
from isl_emu.network.desired import COUNTERS, FOUND, ROUTE, ends_at, initial_ends, policed_byte
from isl_emu.network.kernel import KernelBackend
from isl_emu.network.naming import IPV4_BASE, IPV6_BASE, IPV6_GATEWAY_BASE
from isl_emu.network.qdiscs import ALL_LOST, RTM_GETQDISC, TC_H_ROOT, qdiscs_question
from isl_emu.network.queues import RTM_GETACTION, TC_ACT_STOLEN, TC_H_CLSACT, actions_question
from isl_emu.network.routes import RTM_GETROUTE, RTPROT_ISL_EMU, routes_question
from isl_emu.nodes.netlink import split_attributes
from isl_emu.routing.forwarding import plan_routes

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.benchmarks.bench_growth import sky  # noqa: E402
from tests.benchmarks.bench_network import backend, seconds  # noqa: E402

ROUNDS, DESTINATIONS = 5, 50
TCMSG, QOPT, POLICE = struct.Struct("=BxxxiIII"), struct.Struct("=6I"), struct.Struct("=IiIIIBBHhHI12xiiI")
BASES = {socket.AF_INET: (IPV4_BASE, IPV4_BASE), socket.AF_INET6: (IPV6_BASE, IPV6_GATEWAY_BASE)}
NAMES = {socket.AF_INET: "IPv4", socket.AF_INET6: "IPv6"}


class OneByOne:
    """The plain way: each object of each dump is taken apart by itself."""

    def __init__(self, made: KernelBackend):
        self._made = made
        self._ends = [
            dict(zip(made.wiring.interface_index[ends].tolist(), ends.tolist(), strict=True))
            for ends in made.wiring.ends_by_node(len(made.plan.nodes.names))
        ]

    def qdiscs(self, node: int) -> list[bytes]:
        return self._made.spaces[node].netlink.dump(RTM_GETQDISC, qdiscs_question())

    def policers(self, node: int) -> list[bytes]:
        return self._made.spaces[node].netlink.dump(RTM_GETACTION, actions_question("police"))

    def routes(self, node: int, family: int) -> list[bytes]:
        return self._made.spaces[node].netlink.dump(RTM_GETROUTE, routes_question(family))

    def counters(self, nodes: Sequence[int]) -> np.ndarray:
        found = []
        for node in nodes:
            qdiscs, policed = self.qdiscs(node), {}
            for options, stats in _actions(self.policers(node)):
                index = POLICE.unpack(options[1])[0]
                policed[index] = struct.unpack_from("=5I", split_attributes(stats)[3])[4]
            for index, attributes in _roots(qdiscs):
                if (end := self._ends[node].get(index)) is not None:
                    stats = split_attributes(attributes[7])
                    byte, packets = struct.unpack_from("=QI", stats[1])
                    packets = struct.unpack("=Q", stats[8])[0] if 8 in stats else packets
                    waiting, waiting_byte, dropped, _, _ = struct.unpack_from("=5I", stats[3])
                    sent = byte, packets, 0, waiting_byte, waiting
                    found.append((end, dropped, policed.get(index, 0), *sent, 0, 0))
        return np.array(found, COUNTERS)

    def ends(self, nodes: Sequence[int]) -> np.ndarray:
        found = []
        for node in nodes:
            qdiscs, policers = self.qdiscs(node), {}
            hooked = {TCMSG.unpack_from(one)[1] for one in qdiscs if TCMSG.unpack_from(one)[3] == TC_H_CLSACT}
            for options, _ in _actions(self.policers(node)):
                index, action, _, ticks, *_, rate, _, bound, _ = POLICE.unpack(options[1])
                if action == TC_ACT_STOLEN and bound and index in hooked:
                    rate_bit_s = 8 * (struct.unpack("=Q", options[8])[0] if 8 in options else rate)
                    policers[index] = rate_bit_s, policed_byte(np.int64(ticks), np.int64(rate_bit_s))
            for index, attributes in _roots(qdiscs):
                if (end := self._ends[node].get(index)) is None or attributes[1] != b"netem\0":
                    continue
                ticks, limit, loss, gap, duplicate, jitter = QOPT.unpack_from(attributes[2])
                options = split_attributes(attributes[2][QOPT.size :])
                delay_ns = struct.unpack("=q", options[10])[0] if 10 in options else 64 * ticks
                rate = struct.unpack("=Q", options[8])[0] if 8 in options else struct.unpack_from("=I", options[6])[0]
                jitter_ns = struct.unpack("=q", options[11])[0] if 11 in options else 64 * jitter
                ratios = (one / ALL_LOST for one in (loss, struct.unpack_from("=I", options[4])[0], duplicate))
                plain = not (gap or any(options.get(3, b"")) or any(options.get(12, b"")))
                policer = policers.get(index, (0, 0))
                found.append((end, delay_ns, 8 * rate, limit, *ratios, jitter_ns, plain, 0, *policer))
        return np.array(found, FOUND)

    def tables(self, nodes: Sequence[int]) -> dict[str, np.ndarray]:
        found: dict[str, list[tuple[int, int, int]]] = {name: [] for name in NAMES.values()}
        for family, (base, gateways) in BASES.items():
            for node in nodes:
                for body in self.routes(node, family):
                    if body[4:6] == bytes([254, RTPROT_ISL_EMU]):
                        attributes = split_attributes(body[12:])
                        destination, peer = (int.from_bytes(attributes[kind], "big") for kind in (1, 5))
                        end = self._ends[node][struct.unpack("=I", attributes[4])[0]]
                        assert self._made.wiring.peer[end] == peer - gateways - 1
                        found[NAMES[family]].append((node, destination - base - 1, end // 2))
        return {name: np.array(rows, ROUTE) for name, rows in found.items()}


def _roots(qdiscs: Sequence[bytes]) -> Iterator[tuple[int, dict[int, bytes]]]:
    for body in qdiscs:
        _, index, _, parent, _ = TCMSG.unpack_from(body)
        if parent == TC_H_ROOT:
            yield index, split_attributes(body[TCMSG.size :])


def _actions(bodies: Sequence[bytes]) -> Iterator[tuple[dict[int, bytes], bytes]]:
    for body in bodies:
        for one in split_attributes(split_attributes(body[4:]).get(1, b"")).values():
            attributes = split_attributes(one)
            yield split_attributes(attributes[2]), attributes[4]


def measured(made: KernelBackend, plan: LinkPlan) -> Iterator[tuple[str, int, list[float]]]:
    """What is read, of how many nodes, and how long the questions alone, our way and the plain way take."""
    plain, nodes = OneByOne(made), range(len(plan.nodes.names))

    def ask(*questions: Callable[[int], object]) -> None:
        for node in nodes:
            for question in questions:
                question(node)

    ipv4, ipv6 = (lambda node: plain.routes(node, socket.AF_INET)), (lambda node: plain.routes(node, socket.AF_INET6))
    ways: dict[str, tuple[Callable[[], object], ...]] = {
        "counters": (
            lambda: ask(plain.qdiscs, plain.policers), lambda: made.counters(nodes), lambda: plain.counters(nodes)
        ),
        "shaping": (
            lambda: ask(plain.qdiscs, plain.policers), lambda: made.read_ends(nodes), lambda: plain.ends(nodes)
        ),
        "routes": (lambda: ask(ipv4, ipv6), lambda: made.read_routes(nodes), lambda: plain.tables(nodes)),
    }  # fmt: skip
    assert (made.counters(nodes)[["end", "netem", "queue"]] == plain.counters(nodes)[["end", "netem", "queue"]]).all()
    assert (made.read_ends(nodes) == plain.ends(nodes)).all()
    for family, rows in plain.tables(nodes).items():
        assert (made.read_routes(nodes)[family] == rows).all()
    for what, several in ways.items():
        yield what, len(nodes), [min(seconds(way) for _ in range(ROUNDS)) for way in several]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="66,1584", help="satellites, as of bench_growth.py")
    options = parser.parse_args()
    shown = Table("satellites", "read", "asking", "by column", "one by one", "less", title="us a node")
    for size in map(int, options.sizes.split(",")):
        plan = sky(size)
        routes = plan_routes(plan, destinations=list(range(DESTINATIONS))).changes(0)
        with backend(plan) as made:
            states = ends_at(plan, 0, initial_ends(plan, 0), 0)
            made.change_ends(np.arange(len(states)), states)
            rows = np.empty(len(routes.node), ROUTE)
            rows["node"], rows["destination"], rows["link"] = routes.node, routes.destination, routes.link
            made.change_routes(rows)
            for what, nodes, took_s in measured(made, plan):
                asking, ours, plain = (1e6 * one / nodes for one in took_s)
                shown.add_row(
                    f"{size:,}", what, *(f"{one:.0f}" for one in (asking, ours, plain)), f"{plain / ours:.1f}"
                )
    Console(width=120).print(shown)


if __name__ == "__main__":
    main()
