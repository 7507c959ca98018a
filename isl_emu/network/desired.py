"""What a network should hold at an instant, and how it says what it holds: pure numpy, a row per link end or route.

An end is shaped by one netem: packets are serialised at the rate, then delayed, in order. An end that is down keeps
its delay and rate and loses whatever is sent from then on; what already left its laser still arrives.

A netem counts packets, those in flight too, so it cannot tell how long its queue is. What may wait is therefore
decided before it (see `queues`): by a policer in bytes, or, where the queue is managed, in a token bucket of the link's
rate. The netem behind such a bucket serialises a little faster, so that what the bucket lets through in a burst is soon
gone.
"""

from __future__ import annotations

import numpy as np

from isl_emu.linkplan.plan import LinkPlan, QueueKind, Snapshot
from isl_emu.units import NS_PER_S

END = np.dtype(
    [
        ("up", "?"),
        ("planned_delay_ns", "i8"),  # what a packet should take
        ("delay_ns", "i8"),  # what netem is told: the planned delay, slowed down, without netem's own bias
        ("rate_bit_s", "i8"),  # as shaped: physical rate x rate_scale
        ("loss_ratio", "f8"),  # of packets sent while it is up; when it is down all are lost
        ("corruption_ratio", "f8"),  # of packets, of which a bit is flipped
        ("duplication_ratio", "f8"),
        ("jitter_ns", "i8"),  # by how much a delay is longer or shorter at the most, evenly spread
        ("aqm", "u1"),  # QueueKind, see `queue_kinds`; always the same
        ("queue_byte", "i8"),  # how much may wait
    ]
)
FOUND = np.dtype(
    [
        ("end", "i4"),
        ("delay_ns", "i8"),
        ("rate_bit_s", "i8"),
        ("limit_packets", "i8"),
        ("loss_ratio", "f8"),
        ("corruption_ratio", "f8"),
        ("duplication_ratio", "f8"),
        ("jitter_ns", "i8"),
        ("plain", "?"),  # it does nothing else: no reordering, no slots
        ("aqm", "u1"),  # the kind of queue before it
        ("queue_rate_bit_s", "i8"),  # at which that queue is served, 0 if there is none
        ("queue_byte", "i8"),
    ]
)  # what a back end reports of one end's netem, and of what is before it
COUNTERS = np.dtype(
    [
        ("end", "i4"),
        ("netem", "i8"),  # packets that the netem has dropped since it was made
        ("queue", "i8"),  # packets that what is before it has dropped
        ("sent_byte", "i8"),  # that have left the netem, and so crossed the link
        ("sent_packets", "i8"),
        ("marked", "i8"),  # packets that a managed queue has marked (ECN)
        ("backlog_byte", "i8"),  # in the netem now: waiting or in flight
        ("backlog_packets", "i8"),
        ("waiting_byte", "i8"),  # in a managed queue now
        ("waiting_packets", "i8"),
    ]
)  # what a back end reports of one end's packets
ROUTE = np.dtype([("node", "i4"), ("destination", "i4"), ("link", "i4")])
"""A route of a node to a node or alias over a link, or NO_ROUTE. One over several links is as many rows, together."""

UNKNOWN_LINK = -2  # a route of ours that leads somewhere the plan knows no link
IMPAIRMENTS = ("corruption_ratio", "duplication_ratio", "jitter_ns")
SHAPED_FIELDS = ("up", "delay_ns", "rate_bit_s", "loss_ratio", *IMPAIRMENTS, "queue_byte")

HEADER_BYTE = 14  # of Ethernet (IEEE 802.3), which netem and policers count too
NETEM_LIMIT_PACKETS = 2**31 - 1  # none: what is in flight is bounded by what may wait, and that before the netem
RATE_GRAIN_BIT_S = 8  # netem counts whole bytes a second, linux/pkt_sched.h tc_netem_rate
LEAST_QUEUE_FRAMES = 8  # below, any burst would be cut to pieces
TICK_NS = 64  # PSCHED_SHIFT 6, net/pkt_sched.h: how kernels count times in qdiscs, unless a newer attribute has ns
GSO_TIME_NS = 100_000  # the longest time that one super-packet may occupy a link
DELAY_GRAIN_NS = 1_000  # smaller changes wait until they add up: a netem's own timer is a hundred times coarser
GSO_MOST_BYTE = 65_536  # linux/netdevice.h GSO_LEGACY_MAX_SIZE
SERIALISER_HEADROOM_RATIO = 1.02  # a burst of a token bucket, 1 ms each time that its rate changes, is gone in 50 ms


def initial_ends(plan: LinkPlan, bias_ns: int, slowdown: float = 1.0) -> np.ndarray:
    """All ends down, each with the delay and rate that it has when it first comes up; END, shape (2L,)."""
    ends = np.zeros(2 * len(plan.links.a), END)
    ends["aqm"] = np.repeat(queue_kinds(plan), 2)
    for one in (plan.sky, plan):  # a link that a fault cuts all the time is at first as it would be without
        _write(ends, plan, _first_up(one), bias_ns, slowdown)
    ends["up"] = False
    return ends


def _first_up(plan: LinkPlan) -> Snapshot:
    """What each link is like when it first comes up."""
    row = np.full(len(plan.links.a), -1)
    for piece in plan.pieces():
        link, at = np.unique(plan.row_link[piece.rows], return_index=True)
        new = row[link] < 0
        row[link[new]] = at[new] + piece.rows.start
        if (row >= 0).all():
            break
    return plan.at_rows(row[row >= 0])


def ends_at(
    plan: LinkPlan,
    k: int,
    before: np.ndarray,
    bias_ns: int,
    slowdown: float = 1.0,
    grain_ns: int = DELAY_GRAIN_NS,
) -> np.ndarray:
    """All ends at instant `k`, given those of the instant before; END, shape (2L,).

    A link that stays up keeps its delay until that differs from the plan's by more than the grain. So of a
    thousand satellites that move a little only some are to be told, and none is ever further from the plan than that.

    Args:
        bias_ns: what a netem adds by itself; taken off the delay, which never gets below 0.
        slowdown: how many times more slowly than the machine's time the emulated time passes: delays are multiplied
            and rates divided by it, so the same packets are in flight and wait.
        grain_ns: how far a delay may be from the plan's before it is set.
    """
    ends: np.ndarray = before.copy()
    ends["up"] = False
    _write(ends, plan, plan.snapshot(k), bias_ns, slowdown)
    kept = before["up"] & ends["up"] & (np.abs(ends["delay_ns"] - before["delay_ns"]) <= grain_ns)
    ends["delay_ns"][kept] = before["delay_ns"][kept]
    return ends


def changed_ends(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """The ends whose shaping differs, ascending."""
    differs: np.ndarray = np.logical_or.reduce([before[field] != after[field] for field in SHAPED_FIELDS])
    return np.flatnonzero(differs)


def expected(which: np.ndarray, states: np.ndarray) -> np.ndarray:
    """What should be found at the ends `which` (C,) if they are shaped as `states` (END, (C,)) says; FOUND, (C,)."""
    found = np.zeros(len(which), FOUND)
    found["end"], found["plain"] = which, True
    found["rate_bit_s"] = serialiser_bit_s(states)
    found["loss_ratio"] = np.where(states["up"], states["loss_ratio"], 1.0)
    for name in IMPAIRMENTS:
        found[name] = states[name]
    found["delay_ns"], found["aqm"], found["limit_packets"] = states["delay_ns"], states["aqm"], NETEM_LIMIT_PACKETS
    policed_rate, is_policed = policed_bit_s(states["rate_bit_s"]), states["aqm"] == QueueKind.NONE
    policed = policed_byte(policed_ticks(states["queue_byte"], policed_rate), policed_rate)
    found["queue_rate_bit_s"] = np.where(is_policed, policed_rate, bucket_bit_s(states))
    found["queue_byte"] = np.where(is_policed, policed, states["queue_byte"])
    return found


def queue_kinds(plan: LinkPlan) -> np.ndarray:
    """What keeps the queue of each link: QueueKind, uint8 (L,).

    It is what the plan says, but a policer forgets its queue when its rate changes, and counts packets that the netem
    loses before it serialises them. So where a link's rate varies or where it loses or doubles packets, a queue that is
    dropped at its tail is one in a bucket, which does neither.
    """
    kinds: np.ndarray = plan.links.aqm["kind"].copy()
    bucketed = np.zeros(len(kinds), dtype=bool)
    first_bit_s = np.zeros((2, len(kinds)), np.int64)  # none is 0
    for piece in plan.pieces():
        link = plan.row_link[piece.rows]
        bucket = (plan.row_loss_ratio[piece.rows] > 0) | (plan.row_duplication_ratio[piece.rows] > 0)
        for first, column in zip(first_bit_s, (plan.row_rate_ab_bit_s, plan.row_rate_ba_bit_s), strict=True):
            rate = column[piece.rows]
            here = np.zeros(len(kinds), np.int64)
            here[link[::-1]] = rate[::-1]  # of several rows of a link the last one written stays
            first[:] = np.where(first == 0, here, first)
            bucket = bucket | (rate != first[link])
        bucketed[link[bucket]] = True
    kinds[bucketed] = np.where(kinds[bucketed] == QueueKind.NONE, QueueKind.BFIFO, kinds[bucketed])
    return kinds


def shaped_rate_bit_s(physical_bit_s: np.ndarray, rate_scale: float) -> np.ndarray:
    """Physical rates x `rate_scale`, rounded to whole bytes a second and at least one."""
    bytes_s = np.rint(physical_bit_s * (rate_scale / RATE_GRAIN_BIT_S)).astype(np.int64)
    whole_bit_s: np.ndarray = np.maximum(bytes_s, 1) * RATE_GRAIN_BIT_S
    return whole_bit_s


def queue_byte(rate_bit_s: np.ndarray, queue_ns: np.ndarray, frame_byte: np.ndarray) -> np.ndarray:
    """How many bytes may wait, so that the last waits `queue_ns`; at least a few full frames, and a super-packet."""
    waiting = np.ceil(rate_bit_s / 8 * queue_ns / NS_PER_S)
    least = np.maximum(LEAST_QUEUE_FRAMES * frame_byte, _super_packet_byte(rate_bit_s))
    most: np.ndarray = np.clip(waiting, least, np.iinfo(np.int32).max)
    return most.astype(np.int64)


def policed_bit_s(rate_bit_s: np.ndarray) -> np.ndarray:
    """The rate of the policer before a netem of this rate: less by at most a millionth, in whole bytes a second.

    A policer takes the time of a packet from a reciprocal that is rounded down. At the same rate that can be 1 ns less
    than the netem takes, by which the queue of an overloaded link would grow with each packet.
    Source: psched_ratecfg_precompute in net/sched/sch_generic.c, packet_time_ns in net/sched/sch_netem.c.
    """
    byte_s = rate_bit_s // RATE_GRAIN_BIT_S
    policed: np.ndarray = (byte_s - (byte_s >> 20)) * RATE_GRAIN_BIT_S
    return policed


def policed_ticks(byte: np.ndarray, rate_bit_s: np.ndarray) -> np.ndarray:
    """A queue as policers count it: the time that it takes at the rate, in ticks."""
    ticks: np.ndarray = np.minimum(np.ceil(byte * (8 * NS_PER_S / TICK_NS) / rate_bit_s), np.iinfo(np.uint32).max)
    return ticks.astype(np.int64)


def policed_byte(ticks: np.ndarray, rate_bit_s: np.ndarray) -> np.ndarray:
    """The bytes that so many ticks are."""
    byte: np.ndarray = np.rint(ticks * (TICK_NS / (8 * NS_PER_S)) * rate_bit_s)
    return byte.astype(np.int64)


def serialiser_bit_s(ends: np.ndarray) -> np.ndarray:
    """The rate at which the netem of each end serialises; int64, shape as `ends`."""
    return np.where(ends["aqm"] == QueueKind.NONE, ends["rate_bit_s"], faster_bit_s(ends["rate_bit_s"]))


def bucket_bit_s(ends: np.ndarray) -> np.ndarray:
    """The rate of the bucket before each end, in whole bytes a second: the link's, less what its netem doubles."""
    byte_s = ends["rate_bit_s"] // RATE_GRAIN_BIT_S
    less_byte_s = np.maximum((byte_s / (1 + ends["duplication_ratio"])).astype(np.int64), 1)
    whole_bit_s: np.ndarray = np.where(ends["duplication_ratio"] > 0, less_byte_s, byte_s) * RATE_GRAIN_BIT_S
    return whole_bit_s


def faster_bit_s(rate_bit_s: np.ndarray | float) -> np.ndarray:
    """The rate at which the netem behind a managed queue of this rate serialises; int64, of the same shape."""
    whole_byte_s: np.ndarray = np.ceil(rate_bit_s * (SERIALISER_HEADROOM_RATIO / RATE_GRAIN_BIT_S)).astype(np.int64)
    return whole_byte_s * RATE_GRAIN_BIT_S


def frame_byte(plan: LinkPlan) -> np.ndarray:
    """The longest frame of each end, as netem counts it; int64, (2L,)."""
    return np.repeat(plan.links.mtu_byte.astype(np.int64) + HEADER_BYTE, 2)


def gso_byte(plan: LinkPlan) -> np.ndarray:
    """The longest super-packet each end may send: about 100 us at its lowest rate, never below a frame; (2L,)."""
    rate = np.full(2 * len(plan.links.a), np.iinfo(np.int64).max)
    for piece in plan.pieces():
        for side, column in enumerate((plan.row_rate_ab_bit_s, plan.row_rate_ba_bit_s)):
            shaped_bit_s = shaped_rate_bit_s(column[piece.rows], plan.rate_scale)
            np.minimum.at(rate, 2 * plan.row_link[piece.rows] + side, shaped_bit_s)
    longest: np.ndarray = np.maximum(_super_packet_byte(rate), frame_byte(plan))
    return longest.astype(np.int64)


def _super_packet_byte(rate_bit_s: np.ndarray) -> np.ndarray:
    longest: np.ndarray = np.minimum(rate_bit_s * (GSO_TIME_NS / (8 * NS_PER_S)), GSO_MOST_BYTE)
    return longest


def _write(ends: np.ndarray, plan: LinkPlan, snapshot: Snapshot, bias_ns: int, slowdown: float) -> None:
    queue_ns, frames = plan.links.queue_ns[snapshot.link], plan.links.mtu_byte[snapshot.link] + HEADER_BYTE
    delay_ns = np.rint(snapshot.delay_ns * slowdown).astype(np.int64)
    for side, physical in enumerate((snapshot.rate_ab_bit_s, snapshot.rate_ba_bit_s)):
        which = 2 * snapshot.link + side
        rows = np.zeros(len(which), END)
        rows["up"] = True
        rows["planned_delay_ns"] = snapshot.delay_ns
        rows["delay_ns"] = np.maximum(delay_ns - bias_ns, 0)
        rows["rate_bit_s"] = shaped_rate_bit_s(physical, plan.rate_scale / slowdown)
        shaped_bit_s = shaped_rate_bit_s(physical, plan.rate_scale)
        rows["loss_ratio"] = snapshot.loss_ratio
        rows["corruption_ratio"] = snapshot.corruption_ratio
        rows["duplication_ratio"] = snapshot.duplication_ratio
        rows["jitter_ns"] = np.rint(snapshot.jitter_ns * slowdown).astype(np.int64)
        rows["aqm"], rows["queue_byte"] = ends["aqm"][which], queue_byte(shaped_bit_s, queue_ns, frames)
        ends[which] = rows
