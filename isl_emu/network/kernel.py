"""The kernel as a back end: namespaces, veth pairs and netems of a plan, made and changed by batched netlink.

It is long because it is one class, the contract of `replay.Backend` on one set of sockets.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import numpy as np

from isl_emu.errors import NetworkError
from isl_emu.linkplan.plan import LinkPlan, QueueKind
from isl_emu.network import messages, queues
from isl_emu.network.desired import (
    COUNTERS,
    FOUND,
    ROUTE,
    UNKNOWN_LINK,
    frame_byte,
    gso_byte,
    initial_ends,
    queue_kinds,
)
from isl_emu.network.interventions import GROUPS, LINK_GROUPS, Disturbance, Listeners
from isl_emu.network.naming import (
    FIRST_INTERFACE_INDEX,
    MOST_LINK_ENDS,
    NO_END,
    alias_names,
    gateway_packed,
    ipv4_packed,
    ipv6_packed,
    link_packed,
    mac_rows,
    wire,
)
from isl_emu.network.qdiscs import (
    TC_H_ROOT,
    loss_seeds,
    netem_messages,
    qdisc_removal,
)
from isl_emu.network.readback import differing_ends
from isl_emu.network.reading import Reader
from isl_emu.network.routes import (
    Wrapping,
    beyond_route,
    led_on,
    multipath_messages,
    route_messages,
    withdrawal_messages,
)
from isl_emu.network.steering import allow_labels, check_steering, node_messages, wrapping
from isl_emu.nodes.netlink import Batch, Dispatch, repeated
from isl_emu.nodes.nodespaces import NodeSpace, ipv6_available, make_spaces, remove_spaces
from isl_emu.routing.aliases import NO_ALIASES, Aliases
from isl_emu.routing.forwarding import NO_ROUTE
from isl_emu.routing.source_routes import SourceRoutes
from isl_emu.runs.portion import Portion
from isl_emu.scenario.routing import Routing

BUCKET_FIELDS = ("rate_bit_s", "queue_byte", "duplication_ratio")  # of desired.END: what a token bucket is given
FAMILY_NAMES: dict[int, str] = {socket.AF_INET: "IPv4", socket.AF_INET6: "IPv6"}
ANYWHERE, ANYWHERE6 = ipaddress.IPv4Network("0.0.0.0/0"), ipaddress.IPv6Network("::/0")
NODES, NODES6 = ipaddress.IPv4Network("10.0.0.0/8"), ipaddress.IPv6Network("fd00::/64")
IP_VERSION: dict[int, int] = {socket.AF_INET: 4, socket.AF_INET6: 6}
CARRIER_PATIENCE_S = 60.0  # a kernel reports the carrier of thousands of new interfaces within seconds
CARRIER_PAUSE_S = 0.01
NODES_AT_ONCE = 500  # of whom messages are made at once: some 2 kB an end
DOCTOR = "run isl-emu doctor"


Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Beyond = Sequence[tuple[str, Network]]


class KernelBackend:
    """A plan's nodes and links in this kernel. Every link is down and no route is set until they are changed.

    Args:
        slowdown: how many times more slowly than the machine's time the emulated time passes; for queues.
        aliases: further addresses of nodes.
        seed: what the losses of all links follow from, each end's in its own way.
        beyond: networks that are no nodes', each with the node behind which it is.
        handed_over: whose policy "none" leaves routes to others: how links look to them. None if routes are ours.
        steered: where nodes write packets' ways into their headers: these ways, as they are with no route yet.
        portion: the nodes that are on this kernel, all by default. Links to others end in trunks; what is asked of
            other nodes is left to their kernels.
    """

    def __init__(
        self,
        plan: LinkPlan,
        run_id: str,
        slowdown: float = 1.0,
        aliases: Aliases = NO_ALIASES,
        seed: int = 0,
        handed_over: Routing | None = None,
        beyond: Beyond = (),
        steered: SourceRoutes | None = None,
        portion: Portion | None = None,
    ):
        self.portion = portion or Portion.whole(len(plan.nodes.names))
        self._steered, self._wraps = steered, dict[tuple[int, int, int], bytes]()  # by family, node and destination
        self.plan, self._slowdown, self._aliases, self._seed = plan, slowdown, aliases, seed
        self.wiring = wire(plan)
        self.families = (socket.AF_INET, socket.AF_INET6) if ipv6_available() else (socket.AF_INET,)
        self.spaces: list[NodeSpace] = []  # of the nodes that are here
        self._at: dict[int, NodeSpace] = {}  # the same by node
        self._row = np.cumsum(self.portion.here) - 1  # which of `spaces` that of a node is
        self._end_here = self.portion.here[self.wiring.node]
        self._ends = self.wiring.ends_by_node(len(plan.nodes.names))
        self._gso_byte, self._frame_byte = gso_byte(plan), frame_byte(plan)
        self._queue_kind = np.repeat(queue_kinds(plan), 2)
        self._managed = self._queue_kind != QueueKind.NONE
        self._buckets = np.zeros((2 * len(plan.links.a), len(BUCKET_FIELDS)))  # as they were set last
        self._handed_over, self._seen_up = handed_over, np.ones(2 * len(plan.links.a), bool)
        self._networks_beyond = [(plan.nodes.names.index(name), network) for name, network in beyond]
        self._reader = Reader(self._at, self.wiring, self._managed)
        self._dispatch = Dispatch()
        self._listeners: Listeners | None = None
        try:
            self._build(run_id)
        except BaseException:
            self.close()
            raise

    def close(self, *, keep_spaces: bool = False) -> None:
        """Remove everything, or only let go of it; may be called again. Processes in it must have ended before."""
        if self._listeners is not None:
            self._listeners.close()
            self._listeners = None
        self._dispatch.close()
        if not keep_spaces:
            remove_spaces(self.spaces)
        self.spaces.clear()
        self._at.clear()

    def change_ends(self, which: np.ndarray, states: np.ndarray) -> None:
        here = self._end_here[which]
        which, states = which[here], states[here]
        rows = netem_messages(states, self.wiring.interface_index[which], create=False)
        shaping = self._of_ends(which, rows, "the shaping")
        # what is before the netems gets its rates and lengths where these are others than before
        wanted = np.stack([states[field] for field in BUCKET_FIELDS], axis=1)
        changed = (wanted != self._buckets[which]).any(axis=1)
        self._buckets[which[changed]] = wanted[changed]
        by_hand = changed & ~self._managed[which]  # as plans have buckets then
        policers = []
        if by_hand.any():
            rows = queues.policer_changes(states[by_hand], self.wiring.interface_index[which[by_hand]])
            policers = [self._of_ends(which[by_hand], rows, "the queue")]
        changed &= self._managed[which]
        ends = which[changed]
        buckets = self._of_ends(ends, self._bucket_messages(ends, states[changed], create=False), "the queue")
        self._dispatch.send(*policers, shaping, buckets, self._carriers(which, states))

    def _carriers(self, which: np.ndarray, states: np.ndarray) -> Batch:
        """What tells those who route, where they are to see it, which of their links are there now."""
        seen = self._handed_over is not None and self._handed_over.carrier
        turned = np.flatnonzero(states["up"] != self._seen_up[which]) if seen else np.empty(0, dtype=np.int64)
        ends = which[turned]
        self._seen_up[ends] = states["up"][turned]
        rows = messages.operation_messages(states["up"][turned], self.wiring.interface_index[ends])
        return self._of_ends(ends, rows, "the state")

    def _of_ends(self, ends: np.ndarray, rows: np.ndarray, what: str) -> Batch:
        """A message for each of some ends, to its node, that sets `what` of it."""
        return Batch(
            self._row[self.wiring.node[ends]], rows, lambda index: f"{what} of {self.wiring.interface[ends[index]]}"
        )

    def change_routes(self, routes: np.ndarray) -> None:
        if self._steered:  # which follows ways through nodes of other kernels
            for batch in self._steer(self._steered, routes):
                self._dispatch.send_patiently(batch)
            return
        routes = routes[self.portion.here[routes["node"]]]
        gone = routes["link"] == NO_ROUTE
        kept, withdrawn = routes[~gone], routes[gone]
        batches = []
        for family in self.families:
            for hops, several in _by_hops(kept):
                links = several["link"] if hops > 1 else several["link"][:, 0]
                new = self._new_routes(family, several[:, 0], links)
                batches += [new, *self._beyond(family, new, several[:, 0]["destination"])]
            rows = withdrawal_messages(family, withdrawn["destination"])
            old = Batch(self._row[withdrawn["node"]], rows, self._route_name(family, withdrawn))
            batches += [old, *self._beyond(family, old, withdrawn["destination"])]
        self._dispatch.send(*batches)

    def _steer(self, steered: SourceRoutes, changed: np.ndarray) -> Iterator[Batch]:
        """All routes of nodes here whose ways a change of next hops anywhere changes, with these ways in headers."""
        found = steered.change(changed["node"], changed["destination"], changed["link"])
        node, destination, ways = (column[self.portion.here[found[0]]] for column in found)
        routes = np.empty(len(node), ROUTE)
        routes["node"], routes["destination"] = node, destination
        routes["link"] = ways[:, 0] if ways.shape[1] else NO_ROUTE
        hops, mtu = (ways >= 0).sum(axis=1), steered.mtu_byte(ways)
        for family in self.families:
            for count in np.unique(hops[hops > 0]).tolist():
                some, wrap = np.flatnonzero(hops == count), None
                if steered.forwarding != "mpls" or count > 1:  # over one link there is no label to tell
                    wrap = wrapping(steered.forwarding, family, self.wiring, node[some], ways[some, :count], mtu[some])
                places = zip(node[some].tolist(), destination[some].tolist(), strict=True)
                told = [b""] * len(some) if wrap is None else [one.tobytes() for one in wrap.told]
                self._wraps.update({(family, *place): one for place, one in zip(places, told, strict=True)})
                yield self._new_routes(family, routes[some], routes["link"][some], wrap)
        for family in self.families:
            ended = zip(node.tolist(), destination.tolist(), hops.tolist(), strict=True)
            known = [not links and self._wraps.pop((family, a, b), None) is not None for a, b, links in ended]
            gone = routes[np.array(known, dtype=bool)]  # others had no way before either
            row = self._row[gone["node"]]
            yield Batch(row, withdrawal_messages(family, gone["destination"]), self._route_name(family, gone))

    def _beyond(self, family: int, routes: Batch, destination: np.ndarray) -> Iterator[Batch]:
        """The same changes for the networks beyond a node, of routes to that node."""
        for node, network in self._networks_beyond:
            if network.version != IP_VERSION[family]:
                continue
            which = np.flatnonzero(destination == node)
            where = f"the route to {network}, beyond {self.plan.nodes.names[node]}"
            yield Batch(routes.node[which], led_on(routes.rows[which], network), partial(_same, where))

    def _new_routes(self, family: int, routes: np.ndarray, links: np.ndarray, wrap: Wrapping | None = None) -> Batch:
        """Make or replace routes over one link each, (C,), or over as many links each, (C, H)."""
        node = routes["node"] if links.ndim == 1 else routes["node"][:, np.newaxis]
        end = self.wiring.end(node, links)
        # packets that leave a node by its own choice get its address, or on a disjoint path that of the way back
        source, alias = routes["node"].copy(), routes["destination"] - len(self.plan.nodes.names)
        of_alias = np.flatnonzero(alias >= 0)
        own = of_alias[self._aliases.user[alias[of_alias]] == source[of_alias]]
        source[own] = len(self.plan.nodes.names) + self._aliases.back(alias[own])
        through = self.wiring.peer[end], self.wiring.interface_index[end]
        if links.ndim == 1:
            rows = route_messages(family, source, routes["destination"], *through, wrap)
        else:
            rows = multipath_messages(family, source, routes["destination"], *through)
        return Batch(self._row[routes["node"]], rows, self._route_name(family, routes))

    def _route_name(self, family: int, routes: np.ndarray) -> Callable[[int], str]:
        def name(index: int) -> str:
            names = [*self.plan.nodes.names, *alias_names(self.plan.nodes.names, self._aliases)]
            return f"the {FAMILY_NAMES[family]} route to {names[routes['destination'][index]]}"

        return name

    def read_ends(self, nodes: Sequence[int]) -> np.ndarray:
        parts = (self._reader.ends(some) for some in _parts(self._those_here(nodes), NODES_AT_ONCE))
        return np.concatenate([np.empty(0, FOUND), *parts])

    def _those_here(self, nodes: Iterable[int]) -> list[int]:
        return [node for node in nodes if node in self._at]

    def read_routes(self, nodes: Sequence[int]) -> dict[str, np.ndarray]:
        return {FAMILY_NAMES[family]: self._routes_found(family, self._those_here(nodes)) for family in self.families}

    def _routes_found(self, family: int, nodes: Sequence[int]) -> np.ndarray:
        hops, link = self._reader.next_hops(family, nodes)
        as_told = link != NO_END
        if self._steered:
            places = zip(hops.node.tolist(), hops.destination.tolist(), strict=True)
            told = (self._wraps.get((family, *place), b"") for place in places)
            as_told &= [hops.wrap.text(row) == one for row, one in enumerate(told)]
        found = np.empty(len(link), ROUTE)
        found["node"], found["destination"] = hops.node, hops.destination
        found["link"] = np.where(as_told, link, UNKNOWN_LINK)
        return found

    def listen(self, now_ns: Callable[[], int]) -> None:
        groups = GROUPS if self._handed_over is None else LINK_GROUPS
        self._listeners = self._listeners or Listeners(self.spaces, now_ns, groups)

    def listen_in(self, node: int) -> None:
        """Hear what others change in a node from now on, if anybody listens: somebody is about to be let in.

        Nodes that nobody is let into are not listened in, since a kernel takes each change in any node to all
        listeners of all: with 2,800 of them an instant would take several times as long.
        """
        if self._listeners is not None:
            self._listeners.listen_in(int(self._row[node]))

    @property
    def disturbed(self) -> bool:
        return self._listeners is not None and self._listeners.disturbed

    def disturbances(self) -> list[Disturbance]:
        found = [] if self._listeners is None else self._listeners.take()
        return [replace(one, node=self.portion.nodes[one.node]) for one in found]

    def interfaces_down(self, node: int) -> list[str]:
        up, ends = self._interfaces(node), self._ends_by_index(node)
        wanted = {messages.LOOPBACK_INDEX: "lo"} | {index: self.wiring.interface[end] for index, end in ends.items()}
        wanted |= {index: queues.queue_name(index) for index in self._ends_by_queue(node)}
        return [name for index, name in wanted.items() if not up.get(index, False)]

    def restore(self, node: int, ends: np.ndarray, routes: np.ndarray) -> list[int]:
        space, others = self._at[node], self._make_again(node)
        for other in {node, *others}:
            self._restore_shaping(other, ends)
        space.netlink.demand(map(messages.link_up, self._ends_by_queue(node)), f"queues of {space.node}")
        self._tell_nodes([node], (errno.EEXIST,))
        self.change_routes(routes)
        return others

    def _interfaces(self, node: int) -> dict[int, bool]:
        """The interfaces of a node by their numbers, and whether they are up."""
        links = self._at[node].netlink.dump(messages.RTM_GETLINK, messages.links_question())
        return {index: bool(flags & messages.IFF_UP) for index, _, flags in map(messages.decode_link, links)}

    def _make_again(self, node: int) -> list[int]:
        """Make a node's interfaces that are gone; the nodes at their other ends, which have lost theirs too."""
        there, others, space = self._interfaces(node), list[int](), self._at[node]
        for end in self._ends[node].tolist():
            if int(self.wiring.interface_index[end]) not in there:
                peer = int(self.wiring.peer[end])
                with self._namespaces({peer} & self._at.keys()) as namespaces:
                    self._make_links(np.array([end]), namespaces, (errno.EEXIST,))
                if peer in self._at:
                    self._tell_nodes([peer], (errno.EEXIST,))
                    others.append(peer)
            index = int(self.wiring.interface_index[end])
            if self._managed[end] and queues.queue_index(index) not in there:
                name, number = queues.queue_name(index), queues.queue_index(index)
                ifb = messages.new_ifb(name, number, int(self._gso_byte[end]), int(self._frame_byte[end]))
                space.netlink.demand([ifb], f"queues of {space.node}", (errno.EEXIST,))
        return others

    def _restore_shaping(self, node: int, states: np.ndarray) -> None:
        """Give the ends of a node that hold something else their qdiscs anew; what waits in them is lost."""
        space, ends, gone = self._at[node], self._ends[node], (errno.ENOENT, errno.EINVAL)
        ends = ends[differing_ends(ends, states[ends], self.read_ends([node]))]
        if not len(ends):
            return
        managed, indices = ends[self._managed[ends]], self.wiring.interface_index[ends]
        places = [(int(index), place) for index in indices for place in (TC_H_ROOT, queues.TC_H_CLSACT)]
        places += [(queues.queue_index(int(index)), TC_H_ROOT) for index in self.wiring.interface_index[managed]]
        for place in places:  # one by one: a kernel may answer for a missing one in several ways
            space.netlink.demand([qdisc_removal(*place)], f"node {space.node}", gone)
        seeds = loss_seeds(self._seed, len(self.wiring.node))[ends]
        netems = netem_messages(states[ends], indices, create=True, seeds=seeds)
        policers = self._policers_of(ends[~self._managed[ends]], states, again=True)
        self._dispatch.send(self._of_ends(ends, netems, "the shaping"), *policers, remedy=DOCTOR)
        if len(managed):
            self._make_queues(space, managed, states, again=True)
        self._buckets[ends] = np.stack([states[ends][field] for field in BUCKET_FIELDS], axis=1)

    def counters(self, nodes: Iterable[int]) -> np.ndarray:
        parts = (self._reader.counters(some) for some in _parts(self._those_here(nodes), NODES_AT_ONCE))
        return np.concatenate([np.empty(0, COUNTERS), *parts])

    def dropped_packets(self) -> int:
        """Packets that link ends have dropped: the link was down or lost them as planned, or a queue was full."""
        found = self.counters(self.portion.nodes)
        return int(found["netem"].sum() + found["queue"].sum())

    def marked_packets(self) -> int:
        """Packets that managed queues have marked as having met congestion (ECN), instead of dropping them."""
        return sum(self._reader.marked_packets(some) for some in _parts(self.portion.nodes, NODES_AT_ONCE))

    def _bucket_messages(self, ends: np.ndarray, states: np.ndarray, *, create: bool) -> np.ndarray:
        interface_index = self.wiring.interface_index[ends]
        return queues.bucket_messages(states, interface_index, self._gso_byte[ends], create=create)

    def _ends_by_index(self, node: int) -> dict[int, int]:
        ends = self._ends[node]
        return dict(zip(self.wiring.interface_index[ends].tolist(), ends.tolist(), strict=True))

    def _ends_by_queue(self, node: int) -> dict[int, int]:
        ends = self._ends[node][self._managed[self._ends[node]]]
        queue_index = map(queues.queue_index, self.wiring.interface_index[ends].tolist())
        return dict(zip(queue_index, ends.tolist(), strict=True))

    def _build(self, run_id: str) -> None:
        if self._handed_over and self._handed_over.addresses == "numbered" and len(self.wiring.node) > MOST_LINK_ENDS:
            raise NetworkError(
                f"routing: {len(self.wiring.node) // 2} links are to be numbered, but there are addresses for "
                f"{MOST_LINK_ENDS // 2}; use a smaller network"
            )
        if self._steered:
            check_steering(self._steered.forwarding)
        nodes = self.portion.nodes
        make_spaces(run_id, [self.plan.nodes.names[node] for node in nodes], self.spaces, nodes)
        self._at.update(zip(nodes, self.spaces, strict=True))
        self._dispatch.watch([space.node for space in self.spaces], [space.netlink for space in self.spaces])
        self._make_all_links()
        states, seeds = initial_ends(self.plan, 0, self._slowdown), loss_seeds(self._seed, 2 * len(self.plan.links.a))
        policed = ~self._managed
        self._buckets[policed] = np.stack([states[policed][field] for field in BUCKET_FIELDS], axis=1)
        for some in _parts(nodes, NODES_AT_ONCE):
            ends = self._ends_of(some)
            netems = netem_messages(states[ends], self.wiring.interface_index[ends], create=True, seeds=seeds[ends])
            policers = self._policers_of(ends[~self._managed[ends]], states)
            self._dispatch.send(
                self._of_ends(ends, netems, "the shaping"), *self._node_messages(some), *policers, remedy=DOCTOR
            )
            self._steer_nodes(some)
        for node in np.unique(self.wiring.node[self._managed & self._end_here]).tolist():
            ends = self._ends[node]
            self._make_queues(self._at[node], ends[self._managed[ends]], states)
        self._await_carriers()

    def _ends_of(self, nodes: Sequence[int]) -> np.ndarray:
        """The ends at some nodes, by node."""
        return np.concatenate([np.empty(0, np.int64), *(self._ends[node] for node in nodes)])

    def _policers_of(self, ends: np.ndarray, states: np.ndarray, *, again: bool = False) -> list[Batch]:
        made = queues.policer_messages(states[ends], self.wiring.interface_index[ends], again=again)
        return [self._of_ends(ends, rows, "the queue") for rows in made]

    def _make_queues(self, space: NodeSpace, ends: np.ndarray, states: np.ndarray, *, again: bool = False) -> None:
        """The interface, bucket and queue discipline of each of a node's managed ends, and the way through them."""
        interfaces, insides = [], []
        for end in ends.tolist():
            aqm, index = self.plan.links.aqm[end // 2], int(self.wiring.interface_index[end])
            name, number = queues.queue_name(index), queues.queue_index(index)
            interfaces += [
                messages.new_ifb(name, number, int(self._gso_byte[end]), int(self._frame_byte[end])),
                messages.link_up(number),
            ]
            if self._queue_kind[end] != QueueKind.BFIFO:  # that one comes with the bucket, and follows its length
                byte, frame = int(states["queue_byte"][end]), int(self._frame_byte[end])
                insides.append(queues.inside_message(aqm, index, byte, frame, self._slowdown))
        detours = queues.detour_messages(self.wiring.interface_index[ends], again=again)
        where = f"queues of {space.node}"
        space.netlink.demand(interfaces, where, (errno.EEXIST,))
        space.netlink.send_rows(self._bucket_messages(ends, states[ends], create=True))
        space.netlink.demand(insides, where)
        self._dispatch.send(*(self._of_ends(ends, rows, "the way into the queue") for rows in detours), remedy=DOCTOR)

    def _make_all_links(self) -> None:
        with self._namespaces(self.portion.nodes) as namespaces:
            for some in _parts(self.portion.nodes, NODES_AT_ONCE):
                ends = self._ends_of(some)
                within = self._end_here[ends ^ 1]  # what crosses has one end here; all others are made from their first
                self._make_links(ends[~within | (ends % 2 == 0)], namespaces)

    def _make_links(self, ends: np.ndarray, namespaces: Mapping[int, int], allowed: Container[int] = ()) -> None:
        """The veth pairs of ends, each end in its node's namespace from the first, and trunks of what crosses."""
        within = self._end_here[ends ^ 1]
        near, crossing = ends[within], ends[~within]
        places = np.array([namespaces[node] for node in self.wiring.peer[near].tolist()], np.int64)
        veths = messages.new_veths(self._veth_ends(near), self._veth_ends(near ^ 1), places)
        part = self.portion.part[self.wiring.peer[crossing]]
        trunks = messages.new_trunks(self._veth_ends(crossing), part, crossing // 2)
        made = self._of_ends(near, veths, "the link"), self._of_ends(crossing, trunks, "the link")
        self._dispatch.send(*made, allowed=allowed, remedy=DOCTOR)

    @contextmanager
    def _namespaces(self, nodes: Iterable[int]) -> Iterator[dict[int, int]]:
        """Open the namespaces of some nodes: descriptors by node."""
        opened: dict[int, int] = {}
        try:
            for node in nodes:
                opened[node] = os.open(self._at[node].path, os.O_RDONLY | os.O_CLOEXEC)
            yield opened
        finally:
            for descriptor in opened.values():
                os.close(descriptor)

    def _veth_ends(self, ends: np.ndarray) -> np.ndarray:
        names, index = [self.wiring.interface[end] for end in ends.tolist()], self.wiring.interface_index[ends]
        return messages.veth_ends(names, index, mac_rows(ends), self._gso_byte[ends], self._frame_byte[ends])

    def _tell_nodes(self, nodes: Sequence[int], allowed: Container[int] = ()) -> None:
        """Tell nodes all that they are told once; an errno may be `allowed` where they know some of it."""
        self._dispatch.send(*self._node_messages(nodes), allowed=allowed, remedy=DOCTOR)
        self._steer_nodes(nodes, allowed)

    def _steer_nodes(self, nodes: Sequence[int], allowed: Container[int] = ()) -> None:
        """Tell nodes what they do with packets whose ways are in their headers, if any are."""
        if self._steered is None:
            return
        for node in nodes:
            space, ends = self._at[node], self._ends[node].tolist()
            if self._steered.forwarding == "mpls":
                there, index = self._interfaces(node), self.wiring.interface_index
                labels = {self.wiring.interface[end]: int(index[end]) for end in ends if int(index[end]) in there}
                allow_labels(space.path, labels)
                ends = [end for end in ends if int(index[end]) in there]
            steering = node_messages(self._steered.forwarding, node, ends, self.wiring)
            space.netlink.demand(steering, f"ways of {space.node}", allowed)

    def _node_messages(self, nodes: Sequence[int]) -> Iterator[Batch]:
        """Bring the loopbacks and all interfaces up, and say who the neighbours are."""
        ipv6, first_alias = socket.AF_INET6 in self.families, len(self.plan.nodes.names)
        own = np.array(nodes, np.int64)
        alias = np.flatnonzero(np.isin(self._aliases.owner, own))
        owner, number = np.append(own, self._aliases.owner[alias]), np.append(own, first_alias + alias)

        def of_nodes(node: np.ndarray, rows: np.ndarray) -> Batch:
            return Batch(self._row[node], rows, partial(_same, "the loopback"))

        lo = np.full(len(owner), messages.LOOPBACK_INDEX)
        yield of_nodes(own, messages.links_up(lo[: len(own)]))
        yield of_nodes(owner, messages.interface_addresses(ipv4_packed(number), 32, lo))
        if ipv6:
            yield of_nodes(owner, messages.interface_addresses(ipv6_packed(number), 128, lo))
        if self._networks_beyond:  # what lies there is no node: an address of a node without a route does not get out
            for network in (NODES, NODES6) if ipv6 else (NODES,):
                yield of_nodes(own, repeated(beyond_route(network), len(own)))
        ends = self._ends_of(nodes)
        index, peer, mac = self.wiring.interface_index[ends], self.wiring.peer[ends], mac_rows(ends ^ 1)
        told = [messages.links_up(index), messages.permanent_neighbours(ipv4_packed(peer), mac, index)]
        if ipv6:
            told.append(messages.permanent_neighbours(gateway_packed(peer), mac, index))
        if self._handed_over is not None:
            told += self._addressed_links(self._handed_over.addresses == "numbered", ends)
        yield from (self._of_ends(ends, rows, "the interface") for rows in told)

    def _addressed_links(self, numbered: bool, ends: np.ndarray) -> Iterator[np.ndarray]:
        """Give ends, for those who route, addresses of their own or those of their nodes."""
        index, node = self.wiring.interface_index[ends], self.wiring.node[ends]
        if socket.AF_INET6 in self.families:
            yield messages.interface_addresses(gateway_packed(node), 64, index, messages.RT_SCOPE_LINK)
        if numbered:
            yield messages.interface_addresses(link_packed(ends), 31, index)
            yield messages.permanent_neighbours(link_packed(ends ^ 1), mac_rows(ends ^ 1), index)
        else:
            yield messages.interface_addresses(ipv4_packed(node), 32, index)

    def _await_carriers(self) -> None:
        """Wait until every interface transmits: a kernel sees a new veth's carrier a moment after it is up."""
        deadline = time.monotonic() + CARRIER_PATIENCE_S
        for space in self.spaces:
            while not _all_running(space):
                if time.monotonic() > deadline:
                    raise NetworkError(
                        f"node {space.node}: an interface has no carrier, but all are up; try again with fewer nodes"
                    )
                time.sleep(CARRIER_PAUSE_S)


def _same(text: str, _index: int) -> str:
    return text


def _parts(nodes: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    return (nodes[start : start + size] for start in range(0, len(nodes), size))


def _by_hops(routes: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Routes by how many links they have, H: ROUTE, shape (C, H). The rows of one route are together."""
    if not len(routes):
        return
    new = np.diff(routes["node"], prepend=-1) != 0
    first = np.flatnonzero(new | (np.diff(routes["destination"], prepend=-1) != 0))
    counts = np.diff(first, append=len(routes))
    for hops in np.unique(counts).tolist():
        yield hops, routes[first[counts == hops][:, np.newaxis] + np.arange(hops)]


def _all_running(space: NodeSpace) -> bool:
    links = map(messages.decode_flags, space.netlink.dump(messages.RTM_GETLINK, messages.links_question()))
    return all(flags & messages.IFF_RUNNING for index, flags in links if index >= FIRST_INTERFACE_INDEX)
