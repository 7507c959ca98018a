"""What a run has captured, for programs: packets with times and places, what they are, and how long they took.

docs/captures.md shows how it is used.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from isl_emu.errors import ScenarioError
from isl_emu.linkplan.plan import LinkPlan, QueueKind
from isl_emu.network.desired import faster_bit_s, queue_kinds
from isl_emu.parts.captures.notes import ETHERNET_BYTE, LABEL_BYTE, addresses_of, labels_of, without_way
from isl_emu.parts.captures.specification import FOLDER
from isl_emu.planned import PlannedNetwork, read_planned
from isl_emu.runs.endpoints import (
    FIRST_CACHE_PORT,
    FIRST_SPLIT_PORT,
    FIRST_STORE_PORT,
    FIRST_TRAINING_PORT,
    MODEL_PORT,
    PROBE_PORT,
    STORE_PORTS,
    TRANSFER_PORT,
)
from isl_emu.runs.folder import RunFolder
from isl_emu.tables.schema import COUNT, NS, TEXT, column, schema
from isl_emu.units import NS_PER_S, NS_PER_US

if TYPE_CHECKING:
    from scapy.layers.l2 import Ether

IPV4_BYTE, IPV6_BYTE = 20, 40
TCP, UDP = 6, 17
FEW_PORTS = 100  # that count up from a first one

DISSECTED = schema(
    column("t_ns", NS, "ns", "when it was sent or arrived, since instant 0"),
    column("node", TEXT, "", "node at whose link end it was captured"),
    column("peer", TEXT, "", "node at the other end of that link"),
    column("way", TEXT, "", "sent: from there over the link; arrived: there"),
    column("source", TEXT, "", "node that it comes from; null if it is of none"),
    column("destination", TEXT, "", "node that it goes to; null if it is of none"),
    column("kind", TEXT, "", "what it is of: probe, question, transfer, kv-handover, split, training, or its protocol"),
    column("length", COUNT, "bytes", "with its Ethernet header"),
    column("what", TEXT, "", "what is in it, as Scapy tells; of a question the first line of HTTP"),
)
ONE_WAY = schema(
    column("t_sent_ns", NS, "ns", "when it was sent, since instant 0"),
    column("t_arrived_ns", NS, "ns", "when it arrived; null if it did not"),
    column("source", TEXT, "", "node that it comes from; null if it is of none"),
    column("destination", TEXT, "", "node that it goes to; null if it is of none"),
    column("length", COUNT, "bytes", "with its Ethernet header"),
    column("delay_ns", NS, "ns", "t_arrived - t_sent"),
    column("planned_delay_ns", NS, "ns", "propagation between both places by the plan; null without a path"),
    column("planned_serialisation_ns", NS, "ns", "time to put it on each link between, where it meets no other"),
    column("excess_ns", NS, "ns", "delay - planned_delay - planned_serialisation: mostly time in queues"),
)


@dataclass(frozen=True)
class Captured:
    """A packet at a link end.

    Args:
        t_ns: when it was sent or arrived, since instant 0; without a run, UTC.
        node: at whose link end.
        outbound: whether it was sent from there.
        data: what was kept of it, from its Ethernet header on; `length` is its own.
        comment: what the plan said of it, on the first packet after a change.
    """

    t_ns: int
    node: str
    peer: str
    outbound: bool
    data: bytes
    length: int
    comment: str | None

    @cached_property
    def packet(self) -> Ether:
        """It as Scapy has it."""
        from scapy.layers import inet, inet6  # noqa: F401, PLC0415  so that what is inside is known
        from scapy.layers.l2 import Ether  # noqa: PLC0415  slow to import

        return Ether(self.data)


def read(path: str | os.PathLike[str], name: str | None = None) -> list[Captured]:
    """The packets of a pcapng file, or of all captures of a run by its folder of results, in the order of time.

    Args:
        name: of a run, only of this capture.

    Raises:
        ScenarioError: there is no such file or capture, or it is no pcapng file.
    """
    where = Path(path)
    if not where.is_dir():
        return sorted(_packets(where, 0), key=lambda one: one.t_ns)
    found = sorted((where / FOLDER).glob("*.pcapng"))
    found = [one for one in found if name is None or one.name.partition(".")[0] == name]
    if not found:
        which = "captures" if name is None else f"capture {name!r}"
        raise ScenarioError(f"{where}: has no {which}, but one is read; see its summary, and captures of its scenario")
    start_ns = _start_ns(_plan_of(where).link_plan)
    return sorted((packet for one in found for packet in _packets(one, start_ns)), key=lambda one: one.t_ns)


def dissected(packets: Iterable[Captured], run: str | os.PathLike[str]) -> pa.Table:
    """What packets are, by the nodes that they come from and go to, the ports of the run's own programs, and Scapy.

    Args:
        run: its folder of results.

    Raises:
        ScenarioError: it is none.
    """
    names = _plan_of(Path(run)).nodes
    rows = []
    for one in packets:
        source, destination = _nodes(one.data, names)
        row = {"t_ns": one.t_ns, "node": one.node, "peer": one.peer, "way": "sent" if one.outbound else "arrived"}
        row |= {"source": source, "destination": destination, "length": one.length}
        rows.append({**row, "kind": _kind(one), "what": _what(one)})
    return pa.Table.from_pylist(rows, schema=DISSECTED)


def one_way(
    sent: Iterable[Captured], arrived: Iterable[Captured], run: str | os.PathLike[str] | None = None
) -> pa.Table:
    """How long packets took from one place to another, a row for each that was sent.

    A packet is the same by all that its way does not change: neither its Ethernet header, the labels or segments of its
    way, its TTL, its ECN bits nor its checksums count. Of several equal ones the first that was sent is the first that
    arrives. One that was cut into several on its way (a super-packet of TCP) is not found again.

    Args:
        run: folder of results whose plan says how long it should have taken; without one nothing is planned.

    Raises:
        ScenarioError: it is none.
    """
    waiting: dict[bytes, deque[int]] = defaultdict(deque)
    departures = sorted(sent, key=lambda one: one.t_ns)
    for place, one in enumerate(departures):
        waiting[same_key(one.data)].append(place)
    arrivals: dict[int, Captured] = {}
    for one in sorted(arrived, key=lambda one: one.t_ns):
        places = waiting.get(same_key(one.data))
        if places and departures[places[0]].t_ns <= one.t_ns:
            arrivals[places.popleft()] = one
    plan = None if run is None else _Planned(Path(run))
    rows = []
    for place, one in enumerate(departures):
        came = arrivals.get(place)
        row: dict[str, Any] = {"t_sent_ns": one.t_ns, "length": one.length}
        row["source"], row["destination"] = (None, None) if plan is None else _nodes(one.data, plan.names)
        if came is not None:
            row |= {"t_arrived_ns": came.t_ns, "delay_ns": came.t_ns - one.t_ns}
            if plan is not None and (terms := plan.between(one, came)):
                row |= dict(zip(("planned_delay_ns", "planned_serialisation_ns"), terms, strict=True))
                row["excess_ns"] = row["delay_ns"] - sum(terms)
        rows.append(row)
    return pa.Table.from_pylist(rows, schema=ONE_WAY)


def same_key(frame: bytes) -> bytes:
    """What of a frame its way through the network does not change, as a digest."""
    rest = bytearray(without_way(frame)[ETHERNET_BYTE:])
    version = rest[0] >> 4 if rest else 0
    if version == 4 and len(rest) >= IPV4_BYTE:
        header = (rest[0] & 0xF) * 4
        rest[1] &= 0xFC  # ECN
        rest[8] = rest[10] = rest[11] = 0  # TTL, checksum
        protocol = rest[9]
    elif version == 6 and len(rest) >= IPV6_BYTE:
        header, protocol = IPV6_BYTE, rest[6]
        rest[1] &= 0xCF  # ECN
        rest[7] = 0  # hop limit
    else:
        return hashlib.sha256(frame).digest()
    checksum = header + {TCP: 16, UDP: 6}.get(protocol, 0)
    if protocol in (TCP, UDP) and len(rest) >= checksum + 2:
        rest[checksum] = rest[checksum + 1] = 0
    return hashlib.sha256(rest).digest()


class _Planned:
    """What the plan of a run says of the time between two places."""

    def __init__(self, run: Path):
        self._network = _plan_of(run)
        self._plan, self.names = self._network.link_plan, self._network.nodes
        self._queue_kinds = queue_kinds(self._plan)
        ends = zip(self._plan.links.a.tolist(), self._plan.links.b.tolist(), strict=True)
        self._link = {frozenset((self.names[a], self.names[b])): link for link, (a, b) in enumerate(ends)}
        self._ways: dict[tuple[str, str, int], tuple[str, ...] | None] = {}

    def between(self, sent: Captured, arrived: Captured) -> tuple[int, int] | None:
        """Propagation and time to be sent, ns; None without a path."""
        k = self._plan.grid.instant_at(sent.t_ns)
        straight = sent.outbound and sent.peer == arrived.node and not arrived.outbound
        way = (sent.node, arrived.node) if straight else self._way(sent.node, arrived.node, k)
        if way is None:
            return None
        hops = list(zip(way, way[1:], strict=False))
        try:
            links, _ = self._plan.rows_of(k, [self._link[frozenset(hop)] for hop in hops])
        except KeyError:
            return None
        forth = np.array([self.names[int(self._plan.links.a[link])] for link in links.link]) == [a for a, _ in hops]
        rates = np.where(forth, links.rate_ab_bit_s, links.rate_ba_bit_s).astype(np.float64) * self._plan.rate_scale
        managed = self._queue_kinds[links.link] != QueueKind.NONE
        shaped = [float(faster_bit_s(rate)) if queue else rate for rate, queue in zip(rates, managed, strict=True)]
        return int(links.delay_ns.sum()), sum(
            int(8 * NS_PER_S * (sent.length - LABEL_BYTE * min(place, labels_of(sent.data))) / rate)
            for place, rate in enumerate(shaped)
        )

    def _way(self, a: str, b: str, k: int) -> tuple[str, ...] | None:
        if (a, b, k) not in self._ways:
            path = self._network.path(a, b, k) if a != b else None
            self._ways[a, b, k] = (a,) if a == b else path.nodes if path else None
        return self._ways[a, b, k]


def _plan_of(run: Path) -> PlannedNetwork:
    folder = RunFolder(run)
    if not folder.plan.is_file():
        raise ScenarioError(f"{run}: has no plan, but a folder of results has one; name that of `--out`")
    return read_planned(folder.plan)


def _start_ns(plan: LinkPlan) -> int:
    return NS_PER_US * ((plan.grid.start - datetime(1970, 1, 1, tzinfo=timezone.utc)) // timedelta(microseconds=1))


def _packets(path: Path, start_ns: int) -> Iterator[Captured]:
    from scapy.error import Scapy_Exception  # noqa: PLC0415  slow to import
    from scapy.utils import RawPcapNgReader, RawPcapReader  # noqa: PLC0415

    try:
        with RawPcapReader(str(path)) as reader:
            if not isinstance(reader, RawPcapNgReader):
                raise ScenarioError(f"{path}: is a pcap file, but only pcapng tells of link ends; convert it")
            about: Any  # of pcapng, for which Scapy's types have those of pcap
            for data, about in reader:
                t_ns = ((about.tshigh << 32) + about.tslow) * NS_PER_S // about.tsresol - start_ns
                node, _, peer = (about.ifname or b"").decode(errors="replace").partition(":to-")
                comment = "\n".join(one.decode(errors="replace") for one in about.comments or ()) or None
                yield Captured(t_ns, node, peer, (about.direction or 0) & 3 == 2, data, about.wirelen, comment)
    except OSError as error:
        raise ScenarioError(f"{path}: cannot be read ({error.strerror}), but packets are; name another file") from None
    except (Scapy_Exception, EOFError) as error:
        raise ScenarioError(f"{path}: is no pcapng file ({error}), but one is read; name another") from None


def _nodes(frame: bytes, names: Sequence[str]) -> tuple[str | None, str | None]:
    found = addresses_of(frame) or (-1, -1)
    source, destination = (names[one] if 0 <= one < len(names) else None for one in found)
    return source, destination


def _kind(one: Captured) -> str:
    """What a packet is of, by its ports."""
    layers = one.packet
    for protocol in ("UDP", "TCP"):
        if protocol in layers:
            ports = {layers[protocol].sport, layers[protocol].dport}
            return next((kind for kind, own in PORTS.items() if ports & set(own)), protocol.lower())
    return str(layers.lastlayer().name).lower() if len(one.data) > ETHERNET_BYTE else "ethernet"


def _what(one: Captured) -> str:
    """The first line of HTTP in a packet, or what Scapy says of it."""
    if "TCP" in one.packet:
        line = bytes(one.packet["TCP"].payload).partition(b"\r\n")[0]
        if b"HTTP/1." in line and line.isascii():
            return line.decode()
    return str(one.packet.summary())


PORTS = {
    "probe": (PROBE_PORT,),
    "question": (MODEL_PORT,),
    "transfer": (TRANSFER_PORT,),
    "kv-handover": range(FIRST_CACHE_PORT, FIRST_CACHE_PORT + FEW_PORTS),
    "split": range(FIRST_SPLIT_PORT, FIRST_SPLIT_PORT + FEW_PORTS),
    "training": (
        *range(FIRST_TRAINING_PORT, FIRST_TRAINING_PORT + FEW_PORTS),
        *range(FIRST_STORE_PORT, FIRST_STORE_PORT + STORE_PORTS),
    ),
}
