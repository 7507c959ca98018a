"""What this kernel and user lack for making a network: found by trying, in a throw-away namespace."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from isl_emu.linkplan.plan import AQM, QueueKind
from isl_emu.network.desired import END, FRAME_BYTE
from isl_emu.network.messages import new_ifb, new_veth, veth_end
from isl_emu.network.naming import mac_bytes
from isl_emu.nodes.netlink import Netlink, Refusal
from isl_emu.network.qdiscs import RTM_GETQDISC, decode_netems, netem_messages, qdiscs_question
from isl_emu.network.queues import bucket_messages, detour_messages, inside_message, queue_index, queue_name
from isl_emu.nodes.namespaces import CLONE_NEWNET, in_own_thread, unshare
from isl_emu.units import NS_PER_MS

PROBE_INDEX, PEER_INDEX = 1000, 1001
PROBE_STATE = np.array([(True, 5_000_000, 5_000_001, 40_000_000_000, 1000, 0.0, 0, 0)], END)  # needs 64 bits


def missing_features() -> list[str]:
    """One plain sentence for each thing that networks need and this kernel or user lacks; empty if there is none.

    Modules that the kernel can load by itself are loaded by this. Nothing is left behind.
    """
    return in_own_thread(_missing_here)


def missing_queues(kinds: Iterable[QueueKind]) -> list[str]:
    """One plain sentence for each thing that managed queues of these kinds need and this kernel lacks.

    To be asked only where `missing_features` finds nothing.
    """
    managed = sorted(set(kinds) - {QueueKind.NONE})
    return in_own_thread(_missing_queues_here, managed) if managed else []


def _missing_queues_here(kinds: Sequence[QueueKind]) -> list[str]:
    try:
        unshare(CLONE_NEWNET)
    except OSError as error:
        return [_no_namespace(error)]
    netlink = Netlink()
    needs = [(_veth(), "veth pairs (veth)")]
    needs += [need for number, kind in enumerate(kinds) for need in _needs_of(kind, PROBE_INDEX + 2 * number)]
    needs += [(part, "redirection (sch_ingress, cls_matchall, act_mirred)") for part in detour_messages(PROBE_INDEX)]
    try:
        return [sentence for need, what in needs if (sentence := _refused(netlink, [need], what))]
    finally:
        netlink.close()


def _needs_of(kind: QueueKind, index: int) -> Iterator[tuple[bytes, str]]:
    """The messages that make a queue, each with what it shows to be there."""
    number, gso_byte = int(queue_index(index)), np.array([FRAME_BYTE])
    yield new_ifb(queue_name(index), number, FRAME_BYTE, FRAME_BYTE), "interfaces for queues (ifb)"
    bucket = bucket_messages(PROBE_STATE, np.array([index]), gso_byte, create=True)
    yield bucket.tobytes(), "token buckets (sch_tbf)"
    if kind != QueueKind.BFIFO:
        aqm = np.array([(kind, True, NS_PER_MS, NS_PER_MS)], AQM)[0]
        yield inside_message(aqm, index, FRAME_BYTE, 1.0), f"{kind.name.lower()} (sch_{kind.name.lower()})"


def _missing_here() -> list[str]:
    try:
        unshare(CLONE_NEWNET)
    except OSError as error:
        return [_no_namespace(error)]
    netlink = Netlink()
    try:
        if sentence := _refused(netlink, [_veth()], "veth pairs (veth)"):
            return [sentence]
        row = netem_messages(PROBE_STATE, np.array([PROBE_INDEX]), create=True)
        if sentence := _refused(netlink, [row.tobytes()], "netem (sch_netem)"):
            return [sentence]
        return _half_netem(netlink)
    finally:
        netlink.close()


def _no_namespace(error: OSError) -> str:
    if error.errno == errno.EPERM and os.geteuid() == 0:
        return "root may not make network namespaces here (the container or sandbox withholds CAP_SYS_ADMIN)"
    if error.errno == errno.EPERM:
        return "root is needed to make network namespaces"
    return f"the kernel makes no network namespaces ({os.strerror(error.errno)})"


def _veth() -> bytes:
    near = veth_end("probe-a", PROBE_INDEX, mac_bytes(0), FRAME_BYTE, FRAME_BYTE)
    return new_veth(near, veth_end("probe-b", PEER_INDEX, mac_bytes(1), FRAME_BYTE, FRAME_BYTE), None)


def _refused(netlink: Netlink, messages: Iterable[bytes], what: str) -> str | None:
    netlink.send(messages)
    refused: list[Refusal] = netlink.refusals()
    if not refused:
        return None
    if refused[0].errno in (errno.ENOENT, errno.EOPNOTSUPP):
        return f"the kernel has no {what}"
    return f"the kernel refuses {what}: {refused[0]}"


def _half_netem(netlink: Netlink) -> list[str]:
    """What an old netem ignores without a word."""
    found = decode_netems(netlink.dump(RTM_GETQDISC, qdiscs_question()), {PROBE_INDEX: 0})
    if len(found) != 1 or found["rate_bit_s"][0] != PROBE_STATE["rate_bit_s"][0]:
        return ["the kernel's netem has no 64-bit rate (Linux 3.14 and later have it)"]
    if found["delay_ns"][0] != PROBE_STATE["delay_ns"][0]:
        return ["the kernel's netem has no delay in ns (Linux 4.16 and later have it)"]
    return []
