"""What this kernel and user lack for making a network: found by trying, in a throw-away namespace."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from isl_emu.linkplan.plan import AQM, MTU_BYTE, QueueKind
from isl_emu.network.desired import END, HEADER_BYTE
from isl_emu.network.messages import new_ifb, new_veths, veth_ends
from isl_emu.network.naming import NO_END, mac_rows
from isl_emu.network.qdiscs import RTM_GETQDISC, decode_netems, decode_qdiscs, netem_messages, qdiscs_question
from isl_emu.network.queues import (
    bucket_messages,
    detour_messages,
    inside_message,
    policer_messages,
    queue_index,
    queue_name,
)
from isl_emu.nodes.namespaces import CLONE_NEWNET, in_own_thread, unshare
from isl_emu.nodes.netlink import Netlink
from isl_emu.units import NS_PER_MS

PROBE_INDEX, PEER_INDEX = 1000, 1001
FRAME_BYTE = MTU_BYTE + HEADER_BYTE
PROBE_STATE = np.array(
    [(True, 5_000_000, 5_000_001, 40_000_000_000, 0.0, 0.0, 0.0, 0, 0, 100_000)], END
)  # needs 64 bits


def missing_features() -> list[str]:
    """One plain sentence for each thing that networks need and this kernel or user lacks; empty if there is none.

    Modules that the kernel can load by itself are loaded by this. Nothing is left behind.
    """
    return in_own_thread(_asked_in_a_new_namespace, _lacking_for_links)


def missing_queues(kinds: Iterable[QueueKind]) -> list[str]:
    """One plain sentence for each thing that managed queues of these kinds need and this kernel lacks.

    To be asked only where `missing_features` finds nothing.
    """
    managed = sorted(set(kinds) - {QueueKind.NONE})
    if not managed:
        return []

    def lacking(netlink: Netlink) -> Iterator[str]:
        needs = [(_veth(), "veth pairs (veth)")]
        needs += [need for number, kind in enumerate(managed) for need in _needs_of(kind, PROBE_INDEX + 2 * number)]
        redirection = "redirection (sch_ingress, cls_matchall, act_mirred)"
        needs += [(rows.tobytes(), redirection) for rows in detour_messages(np.array([PROBE_INDEX]))]
        for need, what in needs:
            yield from _refused(netlink, need, what)

    return in_own_thread(_asked_in_a_new_namespace, lacking)


def _asked_in_a_new_namespace(lacking: Callable[[Netlink], Iterable[str]]) -> list[str]:
    """What is lacking, in a network namespace that ends with the calling thread, or why there is none."""
    try:
        unshare(CLONE_NEWNET)
    except OSError as error:
        if error.errno != errno.EPERM:
            return [f"the kernel makes no network namespaces ({error.strerror})"]
        if os.geteuid() == 0:
            return ["root may not make network namespaces here (the container or sandbox withholds CAP_SYS_ADMIN)"]
        return ["root is needed to make network namespaces"]
    netlink = Netlink()
    try:
        return list(lacking(netlink))
    finally:
        netlink.close()


def _lacking_for_links(netlink: Netlink) -> list[str]:
    """The first thing that is lacking: without it the next cannot be tried."""
    row = netem_messages(PROBE_STATE, np.array([PROBE_INDEX]), create=True)
    for need, what in ((_veth(), "veth pairs (veth)"), (row.tobytes(), "netem (sch_netem)")):
        if lacking := _refused(netlink, need, what):
            return lacking
    qdiscs = decode_qdiscs({0: netlink.dump(RTM_GETQDISC, qdiscs_question())})
    found = decode_netems(qdiscs, np.where(qdiscs.index == PROBE_INDEX, 0, NO_END))
    if len(found) != 1 or found["rate_bit_s"][0] != PROBE_STATE["rate_bit_s"][0]:  # an old netem ignores it silently
        return ["the kernel's netem has no 64-bit rate (Linux 3.14 and later have it)"]
    if found["delay_ns"][0] != PROBE_STATE["delay_ns"][0]:
        return ["the kernel's netem has no delay in ns (Linux 4.16 and later have it)"]
    for rows in policer_messages(PROBE_STATE, np.array([PROBE_INDEX])):
        if lacking := _refused(netlink, rows.tobytes(), "policers (sch_ingress, cls_matchall, act_police)"):
            return lacking
    return []


def _needs_of(kind: QueueKind, index: int) -> Iterator[tuple[bytes, str]]:
    """The messages that make a queue, each with what it shows to be there."""
    number, gso_byte = queue_index(index), np.array([FRAME_BYTE])
    yield new_ifb(queue_name(index), number, FRAME_BYTE, FRAME_BYTE), "interfaces for queues (ifb)"
    bucket = bucket_messages(PROBE_STATE, np.array([index]), gso_byte, create=True)
    yield bucket.tobytes(), "token buckets (sch_tbf)"
    if kind != QueueKind.BFIFO:
        aqm = np.array([(kind, True, NS_PER_MS, NS_PER_MS)], AQM)[0]
        yield inside_message(aqm, index, FRAME_BYTE, FRAME_BYTE, 1.0), f"{kind.name.lower()} (sch_{kind.name.lower()})"


def _veth() -> bytes:
    byte = np.full(2, FRAME_BYTE)
    ends = veth_ends(["probe-a", "probe-b"], np.array([PROBE_INDEX, PEER_INDEX]), mac_rows(np.arange(2)), byte, byte)
    return new_veths(ends[:1], ends[1:], None).tobytes()


def _refused(netlink: Netlink, message: bytes, what: str) -> list[str]:
    """A sentence if the kernel refuses a message."""
    netlink.send([message])
    refused = netlink.refusals()
    if not refused:
        return []
    missing = refused[0].errno in (errno.ENOENT, errno.EOPNOTSUPP)
    return [f"the kernel has no {what}" if missing else f"the kernel refuses {what}: {refused[0]}"]
