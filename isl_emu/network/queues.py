"""What may wait at a link's end: decided before its netem, which counts packets, and holds those in flight as well.

Dropped at the tail: a policer whose bucket has the link's rate and the queue's length in bytes. It lets a packet pass
if a queue of that length, served at that rate, had room for it; so the netem's own, served alike, is never longer.

    sent to the interface -> clsact, police -> netem

What it drops is lost for the sender's own TCP too, as in a queue behind another machine. A netem that is full would
tell it, and TCP would send again without ever having lost anything (net/ipv4/tcp_output.c).

Managed: a token bucket of the link's rate with a queue discipline inside.

    sent to the interface -> clsact, mirred -> ifb: tbf (rate) with bfifo, codel, fq_codel or cake -> interface: netem

Such a queue has an interface of its own, one more for each managed end. A queue discipline inside the netem would need
none, but then the queue stands behind the propagation and is filled by whatever arrives there, and kernels before 6.13
lose count of what it drops.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from isl_emu.arrays import Bools, Ints
from isl_emu.linkplan.plan import QueueKind
from isl_emu.network.desired import bucket_bit_s, policed_bit_s, policed_byte, policed_ticks
from isl_emu.network.naming import NO_END, Wiring
from isl_emu.network.qdiscs import (
    HEAD,
    QUEUE_OVERLIMITS,
    ROOT_HANDLE,
    RTM_NEWQDISC,
    TC_H_ROOT,
    TCA_KIND,
    TCA_OPTIONS,
    TCA_STATS_QUEUE,
    U32_MAX,
    Qdiscs,
    root_qdiscs,
    sent_packets,
)
from isl_emu.nodes.dumps import Pieces, joined_dumps
from isl_emu.nodes.netlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    attribute,
    attribute_rows,
    joined,
    message_rows,
    u32,
)
from isl_emu.units import NS_PER_S, NS_PER_US

QUEUE_INDEX_OFFSET = 1_000_000  # of a queue's interface, above that of its link end
BURST_NS = 1_000_000  # how much a bucket holds, in time at its rate: longer than a kernel timer is late
INSIDE = ROOT_HANDLE | 1  # what is inside the bucket
CLSACT_HANDLE, TC_H_CLSACT, CLSACT_EGRESS = 0xFFFF_0000, 0xFFFF_FFF1, 0xFFFF_FFF3  # linux/pkt_sched.h
INSIDE_HANDLE = 0x0002_0000  # "2:"
RTM_NEWTFILTER = 44  # linux/rtnetlink.h
ETH_P_ALL = 0x0300  # in network order, linux/if_ether.h
PREFERENCE = 0xC000  # of ours, as the kernel chooses for a first one: taps are before it
ALL_PROTOCOLS = PREFERENCE << 16 | ETH_P_ALL
TCA_MATCHALL_ACT, TCA_ACT_KIND, TCA_ACT_OPTIONS, TCA_MIRRED_PARMS = 2, 1, 2, 2  # linux/pkt_cls.h, linux/tc_act/
MIRRED = np.dtype(  # linux/tc_act/tc_mirred.h tc_mirred
    [
        ("index", "u4"), ("capabilities", "u4"), ("action", "u4"), ("references", "i4"), ("bound", "i4"),
        ("redirection", "i4"), ("to", "u4"),
    ]
)  # fmt: skip
TC_ACT_STOLEN, TCA_EGRESS_REDIR = 4, 1
RTM_NEWACTION, RTM_GETACTION = 48, 50  # linux/rtnetlink.h, as are the following
TCAMSG, TCA_ACT_TAB, TCA_ACT_STATS = struct.Struct("=Bxxx"), 1, 4
TCA_POLICE_TBF, TCA_POLICE_RATE, TCA_POLICE_RATE64 = 1, 2, 8  # linux/pkt_cls.h
POLICING = np.dtype(  # linux/pkt_cls.h tc_police
    [
        ("index", "u4"), ("action", "i4"), ("limit", "u4"), ("burst_ticks", "u4"), ("mtu_byte", "u4"),
        ("cell_log", "u1"), ("linklayer", "u1"), ("overhead", "u2"), ("cell_align", "i2"), ("mpu", "u2"),
        ("rate_byte_s", "u4"), ("peak", "V12"), ("references", "i4"), ("bound", "i4"), ("capabilities", "u4"),
    ]
)  # fmt: skip
RATE_TABLE = bytes(1024)  # kernels ask for one and take the rate itself
TCA_TBF_PARMS, TCA_TBF_RATE64, TCA_TBF_BURST = 1, 4, 6  # linux/pkt_sched.h, as are the following
TC_LINKLAYER_ETHERNET = 1
TCA_CODEL_TARGET, TCA_CODEL_LIMIT, TCA_CODEL_INTERVAL, TCA_CODEL_ECN = 1, 2, 3, 4  # the same for fq_codel
TCA_CAKE_DIFFSERV_MODE, TCA_CAKE_RTT, TCA_CAKE_TARGET, TCA_CAKE_MEMORY = 3, 7, 8, 10
CAKE_DIFFSERV_BESTEFFORT = 3
MEMORY_PER_BYTE = 2  # a full frame takes 2,304 bytes of a kernel's memory, which is what CAKE counts
TCA_STATS_APP = 4  # linux/gen_stats.h
TCA_CAKE_STATS_TIN_STATS, TCA_CAKE_TIN_STATS_ECN_MARKED_PACKETS = 10, 8
TBF_PARMS = np.dtype(  # linux/pkt_sched.h tc_tbf_qopt
    [
        ("cell_log", "u1"), ("linklayer", "u1"), ("overhead", "u2"), ("cell_align", "i2"), ("mpu", "u2"),
        ("rate_byte_s", "u4"), ("peak", "V12"), ("limit_byte", "u4"), ("buffer", "u4"), ("mtu", "u4"),
    ]
)  # fmt: skip
TBF = np.dtype(
    [
        *HEAD,
        ("kind_length", "u2"), ("kind_type", "u2"), ("kind", "S4"),
        ("options_length", "u2"), ("options_type", "u2"),
        ("parms_length", "u2"), ("parms_type", "u2"),
        *TBF_PARMS.descr,
        ("rate64_length", "u2"), ("rate64_type", "u2"), ("rate64_byte_s", "u8"),
        ("burst_length", "u2"), ("burst_type", "u2"), ("burst_byte", "u4"),
    ]
)  # fmt: skip


def queue_name(interface_index: int) -> str:
    """The interface of the queue that stands before the link end with this interface index."""
    return f"queue-{interface_index}"


def queue_index(interface_index: int) -> int:
    """The number of that interface."""
    return interface_index + QUEUE_INDEX_OFFSET


def bucket_messages(ends: np.ndarray, interface_index: np.ndarray, gso_byte: np.ndarray, *, create: bool) -> np.ndarray:
    """One message per managed end that gives its token bucket the rate and length of `ends` (desired.END).

    A bucket whose rate changes is full again.
    """
    rows = root_qdiscs(TBF, b"tbf", interface_index + QUEUE_INDEX_OFFSET, create=create)
    rate_byte_s = bucket_bit_s(ends) // 8
    rows["parms_length"], rows["parms_type"] = 4 + TBF_PARMS.itemsize, TCA_TBF_PARMS
    rows["linklayer"], rows["rate_byte_s"] = TC_LINKLAYER_ETHERNET, np.minimum(rate_byte_s, U32_MAX)
    rows["limit_byte"] = ends["queue_byte"]
    rows["rate64_length"], rows["rate64_type"], rows["rate64_byte_s"] = 4 + 8, TCA_TBF_RATE64, rate_byte_s
    burst_byte = gso_byte + rate_byte_s * BURST_NS // NS_PER_S
    rows["burst_length"], rows["burst_type"], rows["burst_byte"] = 4 + 4, TCA_TBF_BURST, burst_byte
    return rows


def inside_message(aqm: np.void, interface_index: int, queue_byte: int, frame_byte: int, slowdown: float) -> bytes:
    """What puts a queue discipline (plan.AQM) into a bucket.

    Args:
        queue_byte: the most that may wait at the link's highest rate.
        frame_byte: of a full frame; codel and fq_codel count packets.
    """
    kind = QueueKind(int(aqm["kind"]))
    target_us, interval_us = (round(int(aqm[name]) * slowdown / NS_PER_US) for name in ("target_ns", "interval_ns"))
    options = {
        TCA_CODEL_TARGET: target_us,
        TCA_CODEL_LIMIT: max(queue_byte // frame_byte, 1),
        TCA_CODEL_INTERVAL: interval_us,
        TCA_CODEL_ECN: int(aqm["ecn"]),
    }
    if kind == QueueKind.CAKE:
        options = {
            TCA_CAKE_DIFFSERV_MODE: CAKE_DIFFSERV_BESTEFFORT,
            TCA_CAKE_RTT: interval_us,
            TCA_CAKE_TARGET: target_us,
            TCA_CAKE_MEMORY: MEMORY_PER_BYTE * queue_byte,
        }
    body = b"".join(u32(option, value) for option, value in options.items())
    where = np.array([queue_index(interface_index)])
    return _new_qdiscs(where, INSIDE_HANDLE, INSIDE, kind.name.lower(), body).tobytes()


def detour_messages(interface_index: np.ndarray, *, again: bool = False) -> list[np.ndarray]:
    """What sends every packet of interfaces through their queues before their own root qdiscs, one kind after another.

    Each has its queue's number.

    Args:
        interface_index: int, (C,).
        again: there were some, which may still be there or have been changed.
    """
    queue = (interface_index + QUEUE_INDEX_OFFSET).astype(np.uint32)
    parms = queue, struct.pack("=IiIIi", 0, TC_ACT_STOLEN, 0, 0, TCA_EGRESS_REDIR), queue  # MIRRED
    return _for_all_packets(interface_index, "mirred", attribute_rows(TCA_MIRRED_PARMS, *parms), again=again)


def policer_messages(ends: np.ndarray, interface_index: np.ndarray, *, again: bool = False) -> list[np.ndarray]:
    """What drops packets of interfaces that find their queues full, as `ends` (desired.END) have it.

    They are in the order of their sending: one kind after another. The senders are not told. Each policer has its
    interface's number.

    Args:
        interface_index: int, (C,) as `ends`.
        again: there were some, which may still be there or have been changed.
    """
    return _for_all_packets(interface_index, "police", _policing(ends, interface_index), again=again)


def policer_changes(ends: np.ndarray, interface_index: np.ndarray) -> np.ndarray:
    """Give policers of interfaces other rates and lengths; they forget what waits, so for some time more may."""
    return _replaced("police", _policing(ends, interface_index))


def _policing(ends: np.ndarray, interface_index: np.ndarray) -> np.ndarray:
    rate_bit_s = policed_bit_s(ends["rate_bit_s"])
    rows = np.zeros(len(ends), POLICING)
    rows["index"], rows["action"], rows["mtu_byte"] = interface_index, TC_ACT_STOLEN, U32_MAX
    rows["burst_ticks"] = policed_ticks(ends["queue_byte"], rate_bit_s)
    rows["cell_log"], rows["linklayer"] = 1, TC_LINKLAYER_ETHERNET  # a cell of any size, as there is no table
    rows["rate_byte_s"] = np.minimum(rate_bit_s // 8, U32_MAX)
    return joined(
        attribute_rows(TCA_POLICE_TBF, rows),
        attribute(TCA_POLICE_RATE, RATE_TABLE),
        attribute_rows(TCA_POLICE_RATE64, rate_bit_s // 8),
    )


def actions_question(kind: str) -> bytes:
    """The body of a dump request for all policers ("police") or detours ("mirred")."""
    return TCAMSG.pack(0) + attribute(TCA_ACT_TAB, attribute(1, _kind(TCA_ACT_KIND, kind)))


@dataclass(frozen=True)
class Actions:
    """Dumped policers or detours; arrays and pieces have the shape (D,).

    Args:
        node: whose each is.
        options: what it does.
        stats: what it has counted.
    """

    node: Ints
    options: Pieces
    stats: Pieces


def decode_actions(dumps: Mapping[int, Sequence[bytes]]) -> Actions:
    """The actions in the dumps of some nodes."""
    node, bodies = joined_dumps(dumps)
    (table,) = bodies.attributes(TCA_ACT_TAB, skip=TCAMSG.size)
    message, each = table.parts()
    return Actions(node[message], *each.attributes(TCA_ACT_OPTIONS, TCA_ACT_STATS))


def add_policers(found: np.ndarray, qdiscs: Qdiscs, policers: Actions, wiring: Wiring) -> None:
    """Write into desired.FOUND what qdiscs and policers of nodes say about what may wait at its ends."""
    told, rate64 = policers.options.attributes(TCA_POLICE_TBF, TCA_POLICE_RATE64)
    rows = told.values(POLICING)
    end = wiring.ends_at(policers.node, rows["index"])
    row = _rows_of(end, found["end"], wiring)
    does = (row >= 0) & (rows["action"] == TC_ACT_STOLEN) & (rows["bound"] > 0) & _hooked(qdiscs, wiring)[end]
    rate_bit_s = 8 * rate64.values("u8", otherwise=rows["rate_byte_s"]).astype(np.int64)[does]
    found["queue_rate_bit_s"][row[does]] = rate_bit_s
    found["queue_byte"][row[does]] = policed_byte(rows["burst_ticks"][does].astype(np.int64), rate_bit_s)


def count_policed(policers: Actions, wiring: Wiring) -> tuple[Ints, Ints]:
    """How many packets policers of link ends have dropped since they were made: the ends, and how many each; (D,)."""
    (told,), (queue,) = policers.options.attributes(TCA_POLICE_TBF), policers.stats.attributes(TCA_STATS_QUEUE)
    end = wiring.ends_at(policers.node, told.values("u4"))
    own = np.flatnonzero(end != NO_END)
    return end[own], queue[own].values("u4", QUEUE_OVERLIMITS).astype(np.int64)


def packets_at_filters(qdiscs: Qdiscs, wiring: Wiring) -> tuple[Ints, Ints]:
    """How many packets have come to the filters of link ends, either way: the ends, and how many to each; (D,)."""
    end = np.where(qdiscs.parent == TC_H_CLSACT, wiring.ends_at(qdiscs.node, qdiscs.index), NO_END)
    filters = np.flatnonzero(end != NO_END)
    return end[filters], sent_packets(qdiscs.stats[filters])


def _hooked(qdiscs: Qdiscs, wiring: Wiring) -> Bools:
    """Which ends' packets meet filters: an action stays for a moment after its filter; (2L,), and no end's do."""
    hooked = np.zeros(len(wiring.node) + 1, bool)
    clsact = qdiscs.parent == TC_H_CLSACT
    hooked[wiring.ends_at(qdiscs.node[clsact], qdiscs.index[clsact])] = True
    hooked[NO_END] = False
    return hooked


def _rows_of(end: Ints, found_end: Ints, wiring: Wiring) -> Ints:
    """In which row of `found_end` each end is, -1 where in none or where it is NO_END; (C,)."""
    row = np.full(len(wiring.node) + 1, -1)
    row[found_end] = np.arange(len(found_end))
    rows: Ints = row[end]
    return rows


def _for_all_packets(interface_index: np.ndarray, action: str, options: np.ndarray, *, again: bool) -> list[np.ndarray]:
    """What does something with each packet that is sent to interfaces, before their root qdiscs."""
    index, place = interface_index.astype(np.int32), struct.pack("=III", 0, CLSACT_EGRESS, ALL_PROTOCOLS)
    matchall = attribute_rows(TCA_OPTIONS, attribute_rows(TCA_MATCHALL_ACT, _doing(action, options)))
    new, kind = NLM_F_CREATE | NLM_F_EXCL, _kind(TCA_KIND, "matchall")
    filters = message_rows(RTM_NEWTFILTER, new, bytes(4), index, place, kind, matchall)
    made = [_new_qdiscs(interface_index, CLSACT_HANDLE, TC_H_CLSACT, "clsact"), filters]
    if again:  # a kernel takes an action with this number as it is
        made.append(_replaced(action, options))
    return made


def _replaced(action: str, options: np.ndarray) -> np.ndarray:
    body = TCAMSG.pack(0), attribute_rows(TCA_ACT_TAB, _doing(action, options))
    return message_rows(RTM_NEWACTION, NLM_F_CREATE | NLM_F_REPLACE, *body)


def _doing(action: str, options: np.ndarray) -> np.ndarray:
    return attribute_rows(1, _kind(TCA_ACT_KIND, action), attribute_rows(TCA_ACT_OPTIONS, options))


def queue_ends(node: Ints, index: Ints, wiring: Wiring, managed: Bools) -> Ints:
    """The ends before which interfaces of nodes are their queues', NO_END where before none; (C,).

    Args:
        managed: which ends have a queue; (2L,).
    """
    end = wiring.ends_at(node, index - QUEUE_INDEX_OFFSET)
    return np.where(np.append(managed, False)[end], end, NO_END)


def add_queues(found: np.ndarray, qdiscs: Qdiscs, detours: Actions, wiring: Wiring, managed: Bools) -> None:
    """Write into desired.FOUND what qdiscs and detours of nodes say about the queues before its managed ends.

    Args:
        managed: which ends have a queue; (2L,).
    """
    end = queue_ends(qdiscs.node, qdiscs.index, wiring, managed)
    row = _rows_of(end, found["end"], wiring)
    buckets = np.flatnonzero((row >= 0) & (qdiscs.parent == TC_H_ROOT) & qdiscs.has("tbf"))
    parms, rate64 = qdiscs.options[buckets].attributes(TCA_TBF_PARMS, TCA_TBF_RATE64)
    to, told = row[buckets], parms.values(TBF_PARMS)
    found["queue_rate_bit_s"][to] = 8 * rate64.values("u8", otherwise=told["rate_byte_s"]).astype(np.int64)
    found["queue_byte"][to] = told["limit_byte"]
    found["aqm"][to] = QueueKind.BFIFO  # a dump leaves it out
    inside = np.flatnonzero((row >= 0) & (qdiscs.parent == INSIDE))
    kinds = [qdiscs.kind[inside].are(kind.name.lower().encode() + b"\0") * kind for kind in QueueKind]
    found["aqm"][row[inside]] = np.max(kinds, axis=0)
    rows = detours.options.attributes(TCA_MIRRED_PARMS)[0].values(MIRRED)
    there = (rows["action"] == TC_ACT_STOLEN) & (rows["redirection"] == TCA_EGRESS_REDIR) & (rows["bound"] > 0)
    led = queue_ends(detours.node, rows["index"], wiring, managed)
    led = led[there & (rows["to"] == rows["index"]) & _hooked(qdiscs, wiring)[led]]
    lonely = ~np.isin(found["end"], led)  # no packet comes to such a queue
    found["aqm"][lonely], found["queue_rate_bit_s"][lonely], found["queue_byte"][lonely] = QueueKind.NONE, 0, 0


def marks(qdiscs: Qdiscs) -> Ints:
    """How many packets each qdisc has marked (ECN) since it was made; int64, (C,)."""
    (told,), marked = qdiscs.stats.attributes(TCA_STATS_APP), np.zeros(len(qdiscs.node), np.int64)
    for kind, place in (("codel", 6), ("fq_codel", 3)):  # of ecn_mark: tc_codel_xstats, tc_fq_codel_xstats of a qdisc
        some = np.flatnonzero(qdiscs.has(kind))
        marked[some] = told[some].values("u4", 4 * place)
    cakes = np.flatnonzero(qdiscs.has("cake"))
    cake, tins = told[cakes].attributes(TCA_CAKE_STATS_TIN_STATS)[0].parts()
    np.add.at(marked, cakes[cake], tins.attributes(TCA_CAKE_TIN_STATS_ECN_MARKED_PACKETS)[0].values("u4", otherwise=0))
    return marked


def _new_qdiscs(interface_index: np.ndarray, handle: int, parent: int, kind: str, options: bytes = b"") -> np.ndarray:
    place = bytes(4), interface_index.astype(np.int32), struct.pack("=III", handle, parent, 0)
    more = attribute(TCA_OPTIONS, options) if options else b""
    return message_rows(RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL, *place, _kind(TCA_KIND, kind), more)


def _kind(attribute_type: int, name: str) -> bytes:
    return attribute(attribute_type, name.encode() + b"\0")
