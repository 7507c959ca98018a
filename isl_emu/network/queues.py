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
from collections.abc import Iterator, Mapping

import numpy as np

from isl_emu.linkplan.plan import QueueKind
from isl_emu.network.desired import bucket_bit_s, policed_bit_s, policed_byte, policed_ticks
from isl_emu.network.qdiscs import (
    HEAD,
    QUEUE_STATS,
    ROOT_HANDLE,
    RTM_NEWQDISC,
    TC_H_ROOT,
    TCA_KIND,
    TCA_OPTIONS,
    TCA_STATS2,
    TCA_STATS_QUEUE,
    TCMSG,
    U32_MAX,
    number,
    root_qdiscs,
)
from isl_emu.nodes.netlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    attribute,
    attribute_rows,
    joined,
    message_rows,
    split_attributes,
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
MIRRED = struct.Struct("=5IiI")  # index, capabilities, action, two counts, what to do, interface
TC_ACT_STOLEN, TCA_EGRESS_REDIR = 4, 1
RTM_NEWACTION, RTM_GETACTION = 48, 50  # linux/rtnetlink.h, as are the following
TCAMSG, TCA_ACT_TAB, TCA_ACT_STATS = struct.Struct("=Bxxx"), 1, 4
TCA_POLICE_TBF, TCA_POLICE_RATE, TCA_POLICE_RATE64 = 1, 2, 8  # linux/pkt_cls.h
POLICE = struct.Struct("=IiIIIBBHhHI12xiiI")  # index, action, limit, burst, mtu, rate (as of TBF), peak, counts, more
POLICING = np.dtype(  # the same
    [
        ("index", "u4"), ("action", "i4"), ("limit", "u4"), ("burst_ticks", "u4"), ("mtu_byte", "u4"),
        ("cell_log", "u1"), ("linklayer", "u1"), ("overhead", "u2"), ("cell_align", "i2"), ("mpu", "u2"),
        ("rate_byte_s", "u4"), ("more", "V24"),
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
TBF = np.dtype(
    [
        *HEAD,
        ("kind_length", "u2"), ("kind_type", "u2"), ("kind", "S4"),
        ("options_length", "u2"), ("options_type", "u2"),
        ("parms_length", "u2"), ("parms_type", "u2"),
        ("cell_log", "u1"), ("linklayer", "u1"), ("overhead", "u2"), ("cell_align", "i2"), ("mpu", "u2"),
        ("rate_byte_s", "u4"), ("peak", "V12"), ("limit_byte", "u4"), ("buffer", "u4"), ("mtu", "u4"),
        ("rate64_length", "u2"), ("rate64_type", "u2"), ("rate64_byte_s", "u8"),
        ("burst_length", "u2"), ("burst_type", "u2"), ("burst_byte", "u4"),
    ]
)  # fmt: skip
TBF_PARMS = struct.Struct("=BBHhHI12xIII")  # rate: cell, link layer, overhead, align, least, byte/s; limit, buffer, mtu
TBF_PARMS_BYTE = 36


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
    rows["parms_length"], rows["parms_type"] = 4 + TBF_PARMS_BYTE, TCA_TBF_PARMS
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


def add_policers(
    found: np.ndarray, bodies: list[bytes], policers: list[bytes], end_of_index: Mapping[int, int]
) -> None:
    """Write into desired.FOUND what dumped qdiscs and policers say about what may wait at its ends."""
    row, hooked = {int(end): number for number, end in enumerate(found["end"])}, _hooked(bodies)
    for options, _ in _actions(policers):
        index, action, _, ticks, *_, rate_byte_s, _, bound, _ = POLICE.unpack(options[TCA_POLICE_TBF])
        if (at := row.get(end_of_index.get(index, -1))) is None:
            continue
        if action == TC_ACT_STOLEN and bound and index in hooked:
            rate_bit_s = 8 * number("=Q", options.get(TCA_POLICE_RATE64), rate_byte_s)
            found["queue_rate_bit_s"][at] = rate_bit_s
            found["queue_byte"][at] = policed_byte(np.int64(ticks), np.int64(rate_bit_s))


def count_policed(bodies: list[bytes], end_of_index: Mapping[int, int]) -> dict[int, int]:
    """How many packets dumped policers of link ends have dropped since they were made, by end."""
    return {
        end_of_index[index]: QUEUE_STATS.unpack_from(split_attributes(stats)[TCA_STATS_QUEUE])[4]  # beyond the limit
        for options, stats in _actions(bodies)
        if (index := POLICE.unpack(options[TCA_POLICE_TBF])[0]) in end_of_index
    }


def _actions(bodies: list[bytes]) -> Iterator[tuple[dict[int, bytes], bytes]]:
    """The options and statistics of each action in a dump."""
    for body in bodies:
        for one in split_attributes(split_attributes(body[TCAMSG.size :]).get(TCA_ACT_TAB, b"")).values():
            attributes = split_attributes(one)
            yield split_attributes(attributes[TCA_ACT_OPTIONS]), attributes[TCA_ACT_STATS]


def _hooked(bodies: list[bytes]) -> set[int]:
    """The interfaces whose packets meet filters, by dumped qdiscs: an action stays for a moment after its filter."""
    heads = (TCMSG.unpack_from(body) for body in bodies)
    return {index for _, index, _, parent, _ in heads if parent == TC_H_CLSACT}


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


def add_queues(found: np.ndarray, bodies: list[bytes], detours: list[bytes], end_of_queue: Mapping[int, int]) -> None:
    """Write into desired.FOUND what dumped qdiscs and detours say about the managed queues before its ends.

    Args:
        end_of_queue: number of a queue's interface -> end.
    """
    row = {int(end): number for number, end in enumerate(found["end"])}
    hooked, detoured = {queue_index(index) for index in _hooked(bodies)}, set()
    for options, _ in _actions(detours):
        own, _, action, _, bound, redirection, index = MIRRED.unpack(options[TCA_MIRRED_PARMS])
        if (action, redirection, index) == (TC_ACT_STOLEN, TCA_EGRESS_REDIR, own) and bound and own in hooked:
            detoured.add(end_of_queue.get(own, -1))
    for body in bodies:
        _, index, _, parent, _ = TCMSG.unpack_from(body)
        if (at := row.get(end_of_queue.get(index, -1))) is None:
            continue
        attributes = split_attributes(body[TCMSG.size :])
        kind = attributes[TCA_KIND].rstrip(b"\0").decode()
        if parent == INSIDE:
            found["aqm"][at] = QueueKind.__members__.get(kind.upper(), QueueKind.NONE)
        elif parent == TC_H_ROOT and kind == "tbf":
            options = split_attributes(attributes[TCA_OPTIONS])
            _, _, _, _, _, rate_byte_s, limit_byte, _, _ = TBF_PARMS.unpack(options[TCA_TBF_PARMS])
            found["queue_rate_bit_s"][at] = 8 * number("=Q", options.get(TCA_TBF_RATE64), rate_byte_s)
            found["queue_byte"][at] = limit_byte
            if found["aqm"][at] == QueueKind.NONE:
                found["aqm"][at] = QueueKind.BFIFO  # a dump leaves it out
    lonely = ~np.isin(found["end"], list(detoured))  # no packet comes to such a queue
    found["aqm"][lonely], found["queue_rate_bit_s"][lonely], found["queue_byte"][lonely] = QueueKind.NONE, 0, 0


def marks_by_index(bodies: list[bytes]) -> dict[int, int]:
    """How many packets the disciplines among dumped qdiscs have marked (ECN) since they were made, by interface."""
    marks_of: dict[int, int] = {}
    for body in bodies:
        marks = 0
        attributes = split_attributes(body[TCMSG.size :])
        kind, told = attributes[TCA_KIND], split_attributes(attributes.get(TCA_STATS2, b"")).get(TCA_STATS_APP, b"")
        if kind == b"codel\0":
            marks += struct.unpack_from("=7I", told)[6]  # tc_codel_xstats: ecn_mark is the seventh
        elif kind == b"fq_codel\0":
            marks += struct.unpack_from("=4I", told)[3]  # tc_fq_codel_xstats of a qdisc: the fourth
        elif kind == b"cake\0":
            tins = split_attributes(split_attributes(told)[TCA_CAKE_STATS_TIN_STATS]).values()
            marked = (split_attributes(tin).get(TCA_CAKE_TIN_STATS_ECN_MARKED_PACKETS) for tin in tins)
            marks += sum(number("=I", payload, 0) for payload in marked)
        index = TCMSG.unpack_from(body)[1]
        marks_of[index] = marks_of.get(index, 0) + marks
    return marks_of


def _new_qdiscs(interface_index: np.ndarray, handle: int, parent: int, kind: str, options: bytes = b"") -> np.ndarray:
    place = bytes(4), interface_index.astype(np.int32), struct.pack("=III", handle, parent, 0)
    more = attribute(TCA_OPTIONS, options) if options else b""
    return message_rows(RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL, *place, _kind(TCA_KIND, kind), more)


def _kind(attribute_type: int, name: str) -> bytes:
    return attribute(attribute_type, name.encode() + b"\0")
