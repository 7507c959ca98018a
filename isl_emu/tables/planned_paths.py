"""The plan's paths by node name and time: what requests and probes should have met."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from isl_emu.linkplan.plan import LinkPlan, QueueKind, Snapshot
from isl_emu.network.desired import faster_bit_s, queue_kinds
from isl_emu.routing.paths import Extent, NodePath, PathFinder
from isl_emu.routing.source_routes import header_byte
from isl_emu.units import NS_PER_S

INSTANTS_AT_ONCE = 50_000  # of a path of ten links: some 40 MB


@dataclass(frozen=True)
class PathOverTime:
    """The one path that packets of a size may take from a node to another, over the K instants of a run.

    Where there is no path the numbers are 0, and nothing is dead.
    """

    paths: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]  # S spells: nodes and links; none without a path
    first_k: np.ndarray  # int64 (S,), the instant with which each spell begins
    spell: np.ndarray  # int64 (K,)
    delay_ns: np.ndarray  # int64 (K,)
    jitter_ns: np.ndarray  # int64 (K,)
    serialisation_ns: np.ndarray  # int64 (K,)
    dead: np.ndarray  # bool (K,)
    changes: np.ndarray  # bool (K,), whether it is another than an instant before: links, a delay, a jitter, a cut


class PlannedPaths:
    """The plan's paths by node name and run time, each looked up once.

    Args:
        done_ns: for each instant that was applied, when its last change was in force (ns since the start of the run).
        forwarding: of the scenario's `[routing]`: what headers packets have for it.
    """

    def __init__(self, plan: LinkPlan, finder: PathFinder, done_ns: Mapping[int, int], forwarding: str = "addresses"):
        self.forwarding = forwarding
        self._plan = plan
        self._finder = finder
        self._queue_kinds = queue_kinds(plan)
        self._done_ns = done_ns
        self._index = {name: index for index, name in enumerate(plan.nodes.names)}
        self._found: dict[tuple[str, str, int], NodePath | None] = {}
        self._ends: dict[tuple[str, str, int], frozenset[int]] = {}

    def instant(self, t_ns: int) -> int:
        """The instant whose state is due at `t_ns`."""
        return self._plan.grid.instant_at(t_ns)

    def instants(self, t_ns: np.ndarray) -> np.ndarray:
        """As `instant`, of n times, int64 (n,)."""
        k: np.ndarray = np.clip(t_ns // self._plan.grid.step_ns, 0, self._plan.grid.count - 1)
        return k

    def at(self, source: str, destination: str, k: int) -> NodePath | None:
        """The path at instant `k`, or None where the plan has none."""
        key = (source, destination, k)
        if key not in self._found:
            self._found[key] = self._finder.path(self._index[source], self._index[destination], k)
        return self._found[key]

    def extent(self, source: str, destination: str, k: int) -> Extent | None:
        """Between which bounds a packet's path lies at instant `k`, where it may take one of several; None without."""
        return self._finder.extent(self._index[source], self._index[destination], k)

    def ends(self, source: str, destination: str, k: int) -> frozenset[int]:
        """The link ends from which a packet may be sent on its way at instant `k`; end 2 x link is node a's."""
        key = (source, destination, k)
        if key not in self._ends:
            ends = self._finder.ends_on_the_way(self._index[source], self._index[destination], k)
            self._ends[key] = frozenset(ends)
        return self._ends[key]

    def ends_of(self, path: NodePath) -> list[int]:
        """The link end that sends a packet on each link of a path."""
        senders = zip(path.nodes, path.links, strict=False)
        return [2 * link + int(self._plan.links.a[link] != node) for node, link in senders]

    def holding_ns(self, byte: Mapping[int, int], k: int) -> int:
        """The time that so many bytes at each of some link ends take to be sent, one end after the other."""
        links, _ = self._plan.rows_of(k, [end // 2 for end in byte])
        total_s = 0.0
        for row, (end, count) in enumerate(byte.items()):
            rate_bit_s = (links.rate_ab_bit_s, links.rate_ba_bit_s)[end % 2][row]
            total_s += count * 8 / (float(rate_bit_s) * self._plan.rate_scale)
        return round(total_s * NS_PER_S)

    def names(self, path: NodePath | None) -> list[str] | None:
        """The path's node names."""
        return None if path is None else self.node_names(path.nodes)

    def node_names(self, nodes: Sequence[int]) -> list[str]:
        """The names of nodes."""
        return [self._plan.nodes.names[node] for node in nodes]

    def changes_between(self, source: str, destination: str, from_ns: int, to_ns: int) -> int:
        """How often the path takes other links, appears or vanishes after `from_ns` until `to_ns`."""
        instants = range(self.instant(from_ns), self.instant(to_ns) + 1)
        taken = [path and path.links for path in (self.at(source, destination, k) for k in instants)]
        return sum(before != after for before, after in zip(taken, taken[1:], strict=False))

    def changes(self, source: str, destination: str, from_ns: int, to_ns: int) -> list[tuple[int, int]]:
        """When the path changed in that time: when that was due, and when the last packet of before may have come."""
        changes = []
        for k in range(max(1, self.instant(from_ns)), self.instant(to_ns) + 1):
            before, after = self.at(source, destination, k - 1), self.at(source, destination, k)
            if (before and before.links) != (after and after.links):
                due_ns = k * self._plan.grid.step_ns
                done_ns = max(due_ns, self._done_ns.get(k, due_ns)) + (before.delay_ns if before else 0)
                changes.append((due_ns, done_ns))
        return changes

    def lasers(self, source: str, destination: str, k: int) -> int | None:
        """How many of the path's links are between satellites; None where there is no path."""
        path = self.at(source, destination, k)
        if path is None:
            return None
        return int(np.count_nonzero(self._plan.links.laser[list(path.links)]))

    def vanishes_between(self, a: str, b: str, from_ns: int, to_ns: int) -> bool:
        """Whether at some instant of that time the plan had no path there or none back, or a fault had cut it."""
        instants = range(self.instant(from_ns), self.instant(to_ns) + 1)
        ways = (self.at(*ends, k) for k in instants for ends in ((a, b), (b, a)))
        return any(way is None or way.cut for way in ways)

    def dead(self, source: str, destination: str, k: int) -> bool:
        """Whether a way that packets may take at instant `k` is cut, or loses or spoils them all."""
        return self.loses([end // 2 for end in self.ends(source, destination, k)], k)

    def loses(self, which: Sequence[int], k: int) -> bool:
        """Whether one of some links is cut at instant `k`, or loses or spoils all packets."""
        links, cut = self._plan.rows_of(k, which)
        return bool((cut | (links.loss_ratio >= 1.0) | (links.corruption_ratio >= 1.0)).any())

    def jitter_ns(self, source: str, destination: str, k: int) -> int:
        """How far all jitters on a packet's way at instant `k` can together take its delay from the planned one."""
        return self.jitter_of([end // 2 for end in self.ends(source, destination, k)], k)

    def jitter_of(self, which: Sequence[int], k: int) -> int:
        """The sum of the jitters of some links at instant `k`."""
        links, _ = self._plan.rows_of(k, which)
        return int(links.jitter_ns.sum())

    @property
    def one_way_each(self) -> bool:
        """Whether a packet has one path at most, and no headers for it: then `over_time` says all of it."""
        return self._finder.one_way_each and self.forwarding == "addresses"

    def over_time(self, source: str, destination: str, frame_byte: int) -> PathOverTime:
        """The path over the whole run: as `at`, `dead`, `jitter_ns` and `serialisation_ns` say of each instant."""
        count = self._plan.grid.count
        spell, delay_ns, jitter_ns, sending_ns = np.zeros((4, count), dtype=np.int64)
        dead, changes = np.zeros((2, count), dtype=bool)
        spells = list(self._finder.spells(self._index[source], self._index[destination]))
        before: tuple[tuple[int, ...], np.ndarray | None] = (), None
        for number, (first, end, nodes, links) in enumerate(spells):
            spell[first:end] = number
            for at in range(first, end, INSTANTS_AT_ONCE):
                k = np.arange(at, min(at + INSTANTS_AT_ONCE, end))
                if not nodes:
                    changes[at] = at > 0 and before[1] is not None
                    before = (), None
                    continue
                found, cut = self._plan.rows_over(k, links)
                delay_ns[k], jitter_ns[k] = found.delay_ns.sum(axis=1), found.jitter_ns.sum(axis=1)
                dead[k] = (cut | (found.loss_ratio >= 1.0) | (found.corruption_ratio >= 1.0)).any(axis=1)
                sending_ns[k] = self._sending_over(nodes, links, found, frame_byte)
                state = np.stack([found.delay_ns, found.jitter_ns, cut])
                changes[k[1:]] = (state[:, 1:] != state[:, :-1]).any(axis=(0, 2))
                same = before[1] is not None and before[0] == links and (before[1] == state[:, 0]).all()
                changes[at] = at > 0 and not same
                before = links, state[:, -1]
        ways = tuple((nodes, links) for _, _, nodes, links in spells)
        first_k = np.array([first for first, *_ in spells], dtype=np.int64)
        return PathOverTime(ways, first_k, spell, delay_ns, jitter_ns, sending_ns, dead, changes)

    def _sending_over(
        self, nodes: tuple[int, ...], links: tuple[int, ...], found: Snapshot, frame_byte: int
    ) -> np.ndarray:
        """As `serialisation_ns`, of what the links of a path are like at n instants."""
        which = np.array(links)
        forth = self._plan.links.a[which] == np.array(nodes[:-1])
        rate_bit_s = (
            np.where(forth, found.rate_ab_bit_s, found.rate_ba_bit_s).astype(np.float64) * self._plan.rate_scale
        )
        bare = self._queue_kinds[which] == QueueKind.NONE
        shaped_bit_s = np.where(bare, rate_bit_s, faster_bit_s(rate_bit_s).astype(np.float64))
        sending_ns: np.ndarray = (frame_byte * 8 * NS_PER_S / shaped_bit_s).astype(np.int64).sum(axis=1)
        return sending_ns

    def holding_over(self, byte: np.ndarray, ends: Sequence[int], k: np.ndarray) -> np.ndarray:
        """As `holding_ns`, of H link ends at n instants: `byte` has shape (n, H); int64 (n,)."""
        links, _ = self._plan.rows_over(k, [end // 2 for end in ends])
        total_s = np.zeros(len(k))
        for row, end in enumerate(ends):
            rate_bit_s = (links.rate_ab_bit_s, links.rate_ba_bit_s)[end % 2][:, row]
            total_s += byte[:, row] * 8 / (rate_bit_s.astype(np.float64) * self._plan.rate_scale)
        holding_ns: np.ndarray = np.rint(total_s * NS_PER_S).astype(np.int64)
        return holding_ns

    def straddling(self, way: PathOverTime, from_ns: np.ndarray, to_ns: np.ndarray) -> np.ndarray:
        """As `straddles_change`, for n times at once; bool (n,)."""
        step_ns, count = self._plan.grid.step_ns, self._plan.grid.count
        made_ns = np.arange(count) * step_ns
        for k, done_ns in self._done_ns.items():
            if 0 <= k < count:
                made_ns[k] = max(made_ns[k], done_ns)
        straddles = np.zeros(len(from_ns), dtype=bool)
        open_, k = np.arange(len(from_ns)), np.clip(to_ns // step_ns, 0, count - 1)
        while len(open_):
            goes_on = (k > 0) & (made_ns[k] >= from_ns[open_])
            open_, k = open_[goes_on], k[goes_on]
            found = way.changes[k]
            straddles[open_[found]] = True
            open_, k = open_[~found], k[~found] - 1
        return straddles

    def straddles_change(self, source: str, destination: str, from_ns: int, to_ns: int) -> bool:
        """Whether an instant that changes the path was due, or was late and in the making, in that time."""
        k = self.instant(to_ns)
        while k > 0 and max(self._done_ns.get(k, 0), k * self._plan.grid.step_ns) >= from_ns:
            if self._links_and_delays(source, destination, k) != self._links_and_delays(source, destination, k - 1):
                return True
            k -= 1
        return False

    def _links_and_delays(
        self, source: str, destination: str, k: int
    ) -> tuple[list[int], list[tuple[int, int, bool]]] | None:
        """Of each link along the path, its jitter and if it is cut too: two delays may change and their sum not."""
        if (path := self.at(source, destination, k)) is None:
            return None
        links, cut = self._plan.rows_of(k, path.links)
        return list(path.links), list(zip(links.delay_ns.tolist(), links.jitter_ns.tolist(), cut.tolist()))

    def frames_byte(self, path: NodePath, frame_byte: int) -> list[int]:
        """How long a frame is on each link of the path, with the headers that name its way."""
        return [frame_byte + more for more in header_byte(self.forwarding, path.hops)]

    def serialisation_ns(self, path: NodePath, k: int, frame_byte: int) -> int:
        """The time to put one frame that meets no other on each link of the path, as the links are shaped.

        `frame_byte` is its length without the headers that name its way.
        A managed queue has a bucket for single frames, and the serialiser behind it is a little faster than the link.
        """
        total_ns = 0
        each = zip(path.links, self._rates_bit_s(path, k), self.frames_byte(path, frame_byte), strict=True)
        for link, rate_bit_s, byte in each:
            shaped_bit_s = rate_bit_s if self._queue_kinds[link] == QueueKind.NONE else float(faster_bit_s(rate_bit_s))
            total_ns += int(byte * 8 * NS_PER_S / shaped_bit_s)  # which netem counts in whole ns too
        return total_ns

    def sending_ns(self, path: NodePath, k: int, byte: int) -> int:
        """The time to put a message on the path's slowest link, and a packet of it on each other link."""
        slowest, *others = sorted(self._rates_bit_s(path, k))
        packet_byte = min(byte, int(self._plan.links.mtu_byte[list(path.links)].min()))
        total_s = 8 * byte / slowest + sum(8 * packet_byte / rate_bit_s for rate_bit_s in others)
        return round(total_s * NS_PER_S)

    def capacity_byte(self, source: str, destination: str, from_ns: int, to_ns: int) -> int:
        """What the slowest link of the path could carry in that time, at the shaped rates."""
        step_ns, total_bit = self._plan.grid.step_ns, 0.0
        for k in range(self.instant(from_ns), self.instant(to_ns) + 1):
            if path := self.at(source, destination, k):
                span_ns = min(to_ns, (k + 1) * step_ns) - max(from_ns, k * step_ns)
                total_bit += self.rate_bit_s(path, k) * max(0, span_ns) / NS_PER_S
        return int(total_bit / 8)

    def rate_bit_s(self, path: NodePath, k: int) -> float:
        """The shaped rate of a path's slowest link at instant `k`."""
        return min(self._rates_bit_s(path, k))

    def _rates_bit_s(self, path: NodePath, k: int) -> list[float]:
        """Of each link along the path, as shaped."""
        links, _ = self._plan.rows_of(k, path.links)
        forth = self._plan.links.a[links.link] == np.array(path.nodes[:-1])
        rates = np.where(forth, links.rate_ab_bit_s, links.rate_ba_bit_s).astype(np.float64) * self._plan.rate_scale
        found: list[float] = rates.tolist()
        return found


class HopDelays:
    """The plan's one-way delay of each hop of a way, by node names."""

    def __init__(self, plan: LinkPlan):
        self._plan = plan
        names, links = plan.nodes.names, plan.links
        self._link = {
            frozenset((names[a], names[b])): link for link, (a, b) in enumerate(zip(links.a.tolist(), links.b.tolist()))
        }

    def of(self, way: Sequence[str], t_ns: int) -> list[int]:
        """The delays at a time, ns; of a link that is down then, 0.

        Raises:
            KeyError: two of its nodes are never linked.
        """
        snapshot = self._plan.snapshot(self._plan.grid.instant_at(t_ns))
        found = []
        for hop in zip(way, way[1:], strict=False):
            row = int(np.searchsorted(snapshot.link, link := self._link[frozenset(hop)]))
            up = row < len(snapshot.link) and snapshot.link[row] == link
            found.append(int(snapshot.delay_ns[row]) if up else 0)
        return found

    def link(self, a: str, b: str) -> int | None:
        """The number of the link between two nodes; None if they are never linked."""
        return self._link.get(frozenset((a, b)))
