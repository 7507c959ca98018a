"""netem by netlink: the desired state of link ends as one buffer of messages, and back.

All that is set always goes out together: of what a change leaves out, netem takes some back to its default, and keeps
some as it was.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from isl_emu.arrays import Bools, Ints
from isl_emu.network.desired import FOUND, NETEM_LIMIT_PACKETS, TICK_NS, serialiser_bit_s
from isl_emu.network.naming import NO_END
from isl_emu.nodes.dumps import Pieces, joined_dumps
from isl_emu.nodes.netlink import NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, message

RTM_NEWQDISC, RTM_DELQDISC, RTM_GETQDISC = 36, 37, 38  # linux/rtnetlink.h
TCA_KIND, TCA_OPTIONS, TCA_STATS2 = 1, 2, 7
TCA_STATS_BASIC, TCA_STATS_QUEUE, TCA_STATS_PKT64 = 1, 3, 8  # linux/gen_stats.h
TC_H_ROOT = 0xFFFFFFFF  # linux/pkt_sched.h, as are the following
ROOT_HANDLE = 0x0001_0000  # "1:"
TCA_NETEM_REORDER, TCA_NETEM_CORRUPT = 3, 4
TCA_NETEM_RATE, TCA_NETEM_RATE64, TCA_NETEM_LATENCY64, TCA_NETEM_JITTER64, TCA_NETEM_SLOT = 6, 8, 10, 11, 12
TCA_NETEM_PRNG_SEED = 14  # since Linux 6.6; a kernel before ignores it and draws losses of its own
ALL_LOST = 0xFFFFFFFF
U32_MAX = 0xFFFFFFFF
_FOREIGN = (TCA_NETEM_REORDER, TCA_NETEM_SLOT)

TCMSG = struct.Struct("=BxxxiIII")  # family, index, handle, parent, info
QOPT = struct.Struct("=6I")  # latency, limit, loss, gap, duplicate, jitter
QUEUE_OVERLIMITS = 16  # linux/gen_stats.h gnet_stats_queue: where it counts what was beyond a limit
HEAD = [
    ("length", "u4"), ("type", "u2"), ("flags", "u2"), ("sequence", "u4"), ("port", "u4"),
    ("family", "u4"), ("index", "i4"), ("handle", "u4"), ("parent", "u4"), ("info", "u4"),
]  # fmt: skip
NETEM = np.dtype(
    [
        *HEAD,
        ("kind_length", "u2"), ("kind_type", "u2"), ("kind", "S8"),
        ("options_length", "u2"), ("options_type", "u2"),
        ("latency_tick", "u4"), ("limit", "u4"), ("loss", "u4"), ("gap", "u4"), ("duplicate", "u4"), ("jitter", "u4"),
        ("rate_length", "u2"), ("rate_type", "u2"), ("rate_byte_s", "u4"),
        ("overhead", "i4"), ("cell", "u4"), ("cell_overhead", "i4"),
        ("rate64_length", "u2"), ("rate64_type", "u2"), ("rate64_byte_s", "u8"),
        ("latency64_length", "u2"), ("latency64_type", "u2"), ("latency64_ns", "i8"),
        ("jitter64_length", "u2"), ("jitter64_type", "u2"), ("jitter64_ns", "i8"),
        ("corrupt_length", "u2"), ("corrupt_type", "u2"), ("corrupt", "u4"), ("corrupt_correlation", "u4"),
    ]
)  # fmt: skip


SEEDED_NETEM = np.dtype([*NETEM.descr, ("seed_length", "u2"), ("seed_type", "u2"), ("seed", "u8")])


def netem_messages(
    ends: np.ndarray, interface_index: np.ndarray, *, create: bool, seeds: np.ndarray | None = None
) -> np.ndarray:
    """One message per row of `ends` (desired.END) that gives it exactly this shaping; NETEM, same shape.

    Args:
        create: make the netem, instead of changing the one that is there; a change keeps what is queued.
        seeds: what the losses of each follow from; then SEEDED_NETEM. Without, they are chance, or go on as they were.
    """
    rows = root_qdiscs(NETEM if seeds is None else SEEDED_NETEM, b"netem", interface_index, create=create)
    if seeds is not None:
        rows["seed_length"], rows["seed_type"], rows["seed"] = 4 + 8, TCA_NETEM_PRNG_SEED, seeds
    rate_byte_s = serialiser_bit_s(ends) // 8
    rows["latency_tick"] = np.minimum(ends["delay_ns"] // TICK_NS, U32_MAX)
    rows["limit"] = NETEM_LIMIT_PACKETS
    rows["loss"] = np.rint(np.where(ends["up"], ends["loss_ratio"], 1.0) * ALL_LOST)
    rows["rate_length"], rows["rate_type"] = 4 + 16, TCA_NETEM_RATE
    rows["rate_byte_s"] = np.minimum(rate_byte_s, U32_MAX)
    rows["rate64_length"], rows["rate64_type"], rows["rate64_byte_s"] = 4 + 8, TCA_NETEM_RATE64, rate_byte_s
    rows["latency64_length"], rows["latency64_type"] = 4 + 8, TCA_NETEM_LATENCY64
    rows["latency64_ns"] = ends["delay_ns"]
    rows["jitter"] = np.minimum(ends["jitter_ns"] // TICK_NS, U32_MAX)
    rows["jitter64_length"], rows["jitter64_type"], rows["jitter64_ns"] = 4 + 8, TCA_NETEM_JITTER64, ends["jitter_ns"]
    rows["duplicate"] = np.rint(ends["duplication_ratio"] * ALL_LOST)
    rows["corrupt_length"], rows["corrupt_type"] = 4 + 8, TCA_NETEM_CORRUPT
    rows["corrupt"] = np.rint(ends["corruption_ratio"] * ALL_LOST)
    return rows


def loss_seeds(seed: int, ends: int) -> np.ndarray:
    """A seed for the losses of each of so many link ends; uint64, shape (ends,)."""
    return np.random.SeedSequence(seed).generate_state(ends, np.uint64)


def root_qdiscs(layout: np.dtype, kind: bytes, interface_index: np.ndarray, *, create: bool) -> np.ndarray:
    """One message per interface that makes or changes its root qdisc, still without the kind's own options.

    Args:
        layout: HEAD, the kind, the header of the options, and what the kind's options are.
    """
    rows = np.zeros(len(interface_index), layout)
    rows["length"], rows["type"] = layout.itemsize, RTM_NEWQDISC
    rows["flags"] = NLM_F_REQUEST | (NLM_F_CREATE | NLM_F_EXCL if create else 0)
    rows["sequence"] = np.arange(len(interface_index))
    rows["index"], rows["handle"], rows["parent"] = interface_index, ROOT_HANDLE, TC_H_ROOT
    rows["kind_length"], rows["kind_type"], rows["kind"] = 4 + len(kind) + 1, TCA_KIND, kind
    assert layout.fields is not None
    rows["options_length"], rows["options_type"] = layout.itemsize - layout.fields["options_length"][1], TCA_OPTIONS
    return rows


def qdisc_removal(interface_index: int, parent: int) -> bytes:
    """What removes the qdisc at a place of an interface."""
    return message(RTM_DELQDISC, 0, TCMSG.pack(0, interface_index, 0, parent, 0))


def qdiscs_question() -> bytes:
    """The body of a dump request for the qdiscs of all interfaces."""
    return TCMSG.pack(0, 0, 0, 0, 0)


@dataclass(frozen=True)
class Qdiscs:
    """Dumped qdiscs; arrays and pieces have the shape (C,).

    Args:
        node: whose each is.
        index: of its interface.
        parent: where it is there.
        kind, options, stats: what the kernel tells of it.
    """

    node: Ints
    index: Ints
    parent: Ints
    kind: Pieces
    options: Pieces
    stats: Pieces

    def has(self, kind: str) -> Bools:
        """Which are of a kind."""
        return self.kind.are(kind.encode() + b"\0")


def decode_qdiscs(dumps: Mapping[int, Sequence[bytes]]) -> Qdiscs:
    """The qdiscs in the dumps of some nodes."""
    node, bodies = joined_dumps(dumps)
    attributes = bodies.attributes(TCA_KIND, TCA_OPTIONS, TCA_STATS2, skip=TCMSG.size)
    return Qdiscs(node, bodies.values("i4", 4).astype(np.int64), bodies.values("u4", 12), *attributes)


def decode_netems(qdiscs: Qdiscs, end: Ints) -> np.ndarray:
    """The netems at the roots of link ends among qdiscs; desired.FOUND.

    Args:
        end: at whose interface each qdisc is, NO_END where at none's; (C,).
    """
    netems = np.flatnonzero((end != NO_END) & (qdiscs.parent == TC_H_ROOT) & qdiscs.has("netem"))
    found, told = np.zeros(len(netems), FOUND), qdiscs.options[netems]
    latency_tick, limit, loss, gap, duplicate, jitter_tick = (told.values("u4", 4 * place) for place in range(6))
    rate, rate64, latency64, jitter64, corrupt, *foreign = told.attributes(
        TCA_NETEM_RATE, TCA_NETEM_RATE64, TCA_NETEM_LATENCY64, TCA_NETEM_JITTER64, TCA_NETEM_CORRUPT, *_FOREIGN,
        skip=QOPT.size,
    )  # fmt: skip
    found["end"], found["limit_packets"] = end[netems], limit
    found["delay_ns"] = latency64.values("i8", otherwise=latency_tick.astype(np.int64) * TICK_NS)
    found["rate_bit_s"] = 8 * rate64.values("u8", otherwise=rate.values("u4", otherwise=0)).astype(np.int64)
    found["jitter_ns"] = jitter64.values("i8", otherwise=jitter_tick.astype(np.int64) * TICK_NS)
    found["loss_ratio"], found["duplication_ratio"] = loss / ALL_LOST, duplicate / ALL_LOST
    found["corruption_ratio"] = corrupt.values("u4", otherwise=0) / ALL_LOST
    found["plain"] = ~np.logical_or.reduce([gap != 0, *(one.not_zero() for one in foreign)])
    return found


class RootCounters(NamedTuple):
    """What root qdiscs have done since they were made, and what is in them now; each int64, (D,)."""

    end: Ints  # of each: whose it is
    sent_byte: Ints
    sent_packets: Ints
    dropped: Ints
    backlog_byte: Ints
    backlog_packets: Ints


def root_counters(qdiscs: Qdiscs, end: Ints) -> RootCounters:
    """The counters of the roots of link ends among qdiscs; `end` as of `decode_netems`."""
    roots = np.flatnonzero((end != NO_END) & (qdiscs.parent == TC_H_ROOT))
    basic, queue = qdiscs.stats[roots].attributes(TCA_STATS_BASIC, TCA_STATS_QUEUE)
    waiting, waiting_byte, dropped = (queue.values("u4", 4 * place) for place in range(3))
    sent = basic.values("u8"), sent_packets(qdiscs.stats[roots])
    columns = end[roots], *sent, dropped, waiting_byte, waiting
    return RootCounters(*(column.astype(np.int64) for column in columns))


def sent_packets(stats: Pieces) -> Ints:
    """How many packets qdiscs have counted, by their statistics; int64, (D,)."""
    basic, packets64 = stats.attributes(TCA_STATS_BASIC, TCA_STATS_PKT64)
    return packets64.values("u8", otherwise=basic.values("u4", 8)).astype(np.int64)  # where 32 bits are not enough
