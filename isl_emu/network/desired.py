"""What a network should hold at an instant, and how it says what it holds: pure numpy, a row per link end or route.

An end is shaped by one netem: packets are serialised at the rate, then delayed, in order. An end that is down keeps
its delay and rate and loses whatever is sent from then on; what already left its laser still arrives.

Where the queue is managed, it stands before the netem, in a token bucket of the link's rate (see `queues`). The netem
then serialises a little faster, so that what the bucket lets through in a burst does not wait there for long.
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
        ("limit_packets", "i4"),
        ("loss_ratio", "f8"),  # of packets sent while it is up; when it is down all are lost
        ("aqm", "u1"),  # QueueKind; always the same
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
        ("plain", "?"),  # it does nothing else: no jitter, reordering, duplication, corruption, slots
        ("aqm", "u1"),  # the kind of queue before it
        ("queue_rate_bit_s", "i8"),  # at which that queue is served, 0 if there is none
        ("queue_byte", "i8"),
    ]
)  # what a back end reports of one end's netem, and of the managed queue before it
DROPS = np.dtype([("end", "i4"), ("netem", "i8"), ("queue", "i8")])
"""Packets that an end's netem, and the managed queue before it, have dropped since they were made."""
ROUTE = np.dtype([("node", "i4"), ("destination", "i4"), ("link", "i4")])
"""A route of a node to a node or alias over a link, or NO_ROUTE. One over several links is as many rows, together."""

UNKNOWN_LINK = -2  # a route of ours that leads somewhere the plan knows no link
SHAPED_FIELDS = ("up", "delay_ns", "rate_bit_s", "limit_packets", "loss_ratio", "queue_byte")

FRAME_BYTE = 1514  # an MTU of 1500 and the Ethernet header (IEEE 802.3): what netem counts for a full packet
RATE_GRAIN_BIT_S = 8  # netem counts whole bytes a second, linux/pkt_sched.h tc_netem_rate
IN_FLIGHT_MARGIN = 1.5  # acknowledgements of a bulk flow the other way add one small packet to two full ones (RFC 5681)
LEAST_LIMIT_PACKETS = 8  # below, any burst would be cut to pieces
GSO_TIME_NS = 100_000  # the longest time that one super-packet may occupy a link
DELAY_GRAIN_NS = 1_000  # smaller changes wait until they add up: a netem's own timer is a hundred times coarser
GSO_MOST_BYTE = 65_536  # linux/netdevice.h GSO_LEGACY_MAX_SIZE
SERIALISER_HEADROOM_RATIO = 1.02  # a burst of a token bucket, 1 ms each time that its rate changes, is gone in 50 ms


def initial_ends(plan: LinkPlan, bias_ns: int, slowdown: float = 1.0) -> np.ndarray:
    """All ends down, each with the delay and rate that it has when it first comes up; END, shape (2L,)."""
    link, row = np.unique(plan.row_link, return_index=True)
    terms = plan.row_delay_ns, plan.row_rate_ab_bit_s, plan.row_rate_ba_bit_s, plan.row_loss_ratio
    first = Snapshot(link, *(term[row] for term in terms))
    ends = np.zeros(2 * len(plan.links.a), END)
    ends["aqm"] = np.repeat(plan.links.aqm["kind"], 2)
    _write(ends, plan, first, bias_ns, slowdown)
    ends["up"] = False
    return ends


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
    for field in ("delay_ns", "limit_packets", "aqm"):
        found[field] = states[field]
    managed = states["aqm"] != QueueKind.NONE
    found["queue_rate_bit_s"] = np.where(managed, states["rate_bit_s"], 0)
    found["queue_byte"] = np.where(managed, states["queue_byte"], 0)
    return found


def shaped_rate_bit_s(physical_bit_s: np.ndarray, rate_scale: float) -> np.ndarray:
    """Physical rates x `rate_scale`, rounded to whole bytes a second and at least one."""
    bytes_s = np.rint(physical_bit_s * (rate_scale / RATE_GRAIN_BIT_S)).astype(np.int64)
    whole_bit_s: np.ndarray = np.maximum(bytes_s, 1) * RATE_GRAIN_BIT_S
    return whole_bit_s


def limit_packets(rate_bit_s: np.ndarray, delay_ns: np.ndarray, queue_ns: np.ndarray) -> np.ndarray:
    """How many packets a netem may hold: those in flight and those that wait.

    netem counts packets, not bytes: full frames are assumed. Small packets at line rate are lost before the queue is
    `queue_ns` long; super-packets of bulk TCP, possible above 121 Mbit/s, make it longer. A managed queue is exact.
    """
    full_frames_s = rate_bit_s / (8 * FRAME_BYTE)
    in_flight = np.ceil(full_frames_s * delay_ns / NS_PER_S * IN_FLIGHT_MARGIN)
    waiting = np.ceil(full_frames_s * queue_ns / NS_PER_S)
    packets: np.ndarray = np.clip(in_flight + waiting, LEAST_LIMIT_PACKETS, np.iinfo(np.int32).max)
    return packets.astype(np.int32)


def queue_byte(rate_bit_s: np.ndarray, queue_ns: np.ndarray) -> np.ndarray:
    """How many bytes may wait, so that the last waits `queue_ns`; never less than a few frames."""
    waiting = np.ceil(rate_bit_s / 8 * queue_ns / NS_PER_S)
    most: np.ndarray = np.clip(waiting, LEAST_LIMIT_PACKETS * FRAME_BYTE, np.iinfo(np.int32).max)
    return most.astype(np.int64)


def serialiser_bit_s(ends: np.ndarray) -> np.ndarray:
    """The rate at which the netem of each end serialises; int64, shape as `ends`."""
    return np.where(ends["aqm"] == QueueKind.NONE, ends["rate_bit_s"], faster_bit_s(ends["rate_bit_s"]))


def faster_bit_s(rate_bit_s: np.ndarray | float) -> np.ndarray:
    """The rate at which the netem behind a managed queue of this rate serialises; int64, of the same shape."""
    whole_byte_s: np.ndarray = np.ceil(rate_bit_s * (SERIALISER_HEADROOM_RATIO / RATE_GRAIN_BIT_S)).astype(np.int64)
    return whole_byte_s * RATE_GRAIN_BIT_S


def gso_byte(plan: LinkPlan) -> np.ndarray:
    """The longest super-packet each end may send: about 100 us at its lowest rate, never below a frame; (2L,)."""
    rate = np.full(2 * len(plan.links.a), np.iinfo(np.int64).max)
    np.minimum.at(rate, 2 * plan.row_link, shaped_rate_bit_s(plan.row_rate_ab_bit_s, plan.rate_scale))
    np.minimum.at(rate, 2 * plan.row_link + 1, shaped_rate_bit_s(plan.row_rate_ba_bit_s, plan.rate_scale))
    longest = rate.astype(float) * GSO_TIME_NS / (8 * NS_PER_S)
    return np.clip(longest, FRAME_BYTE, GSO_MOST_BYTE).astype(np.int64)


def _write(ends: np.ndarray, plan: LinkPlan, snapshot: Snapshot, bias_ns: int, slowdown: float) -> None:
    queue_ns = plan.links.queue_ns[snapshot.link]
    delay_ns = np.rint(snapshot.delay_ns * slowdown).astype(np.int64)
    for side, physical in enumerate((snapshot.rate_ab_bit_s, snapshot.rate_ba_bit_s)):
        which = 2 * snapshot.link + side
        rows = np.zeros(len(which), END)
        rows["up"] = True
        rows["planned_delay_ns"] = snapshot.delay_ns
        rows["delay_ns"] = np.maximum(delay_ns - bias_ns, 0)
        rows["rate_bit_s"] = shaped_rate_bit_s(physical, plan.rate_scale / slowdown)
        shaped_bit_s = shaped_rate_bit_s(physical, plan.rate_scale)
        rows["limit_packets"] = limit_packets(shaped_bit_s, snapshot.delay_ns, queue_ns)
        rows["loss_ratio"] = snapshot.loss_ratio
        rows["aqm"], rows["queue_byte"] = ends["aqm"][which], queue_byte(shaped_bit_s, queue_ns)
        ends[which] = rows
