"""One-way probes on the wire: UDP packets built with Scapy, sent and received with the kernel's time stamps.

A packet is stamped when the kernel hands it to the first link's queue, and again when it has arrived at the far node:
what a process does before, between and afterwards, waiting for a CPU above all, is in neither. Both stamps count in
UTC of one kernel, which all nodes share, so their difference is the delay in one direction. A step of UTC in between
would show as an outlier.
"""

from __future__ import annotations

import errno
import logging
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from isl_emu.errors import MachineError
from isl_emu.nodes.namespaces import enter_network, in_own_thread
from isl_emu.runs.endpoints import PROBE_PORT
from isl_emu.units import NS_PER_S

if TYPE_CHECKING:
    from scapy.packet import Packet

logging.getLogger("scapy").setLevel(logging.CRITICAL)  # its warnings are about the machine's own routes, not about ours

PAYLOAD_BYTE = 16
FRAME_BYTE = 14 + 20 + 8 + PAYLOAD_BYTE  # Ethernet, IPv4 and UDP headers before the payload
INITIAL_TTL = 255  # the most there is, as packets of nodes have
# identifier, number, and the number's complement: so the checksum is the same for any number (RFC 1071)
_PAYLOAD = struct.Struct(f"!III{PAYLOAD_BYTE - 12}x")
_WORD = 0xFFFF_FFFF
_PAYLOAD_AT = 20 + 8  # after an IPv4 header without options and a UDP header
_RECEIVE_BYTE, _ANCILLARY_BYTE = 2048, 512

# Source: include/uapi/asm-generic/socket.h, linux/socket.h, linux/in.h, linux/net_tstamp.h
_SO_TIMESTAMPNS, _SO_TIMESTAMPING, _MSG_ERRQUEUE, _IP_TTL, _IP_RECVERR, _IP_RECVTTL = 35, 37, 0x2000, 2, 11, 12
_SOFTWARE, _TX_SCHED, _ONLY_STAMPS = 1 << 4, 1 << 8, 1 << 11
_TIMESPEC = struct.Struct("@qq")
_EXTENDED_ERROR = struct.Struct("=IBBBxII4x4s")  # linux/errqueue.h: errno, origin, type, code, two values; by whom
_ORIGIN_ICMP = 2
_REFUSALS = {  # by ICMP's type and code (RFC 792, RFC 1812)
    (3, 0): "no route",
    (3, 1): "no route",
    (3, 3): "nobody listens",
    (3, 4): "too long for the next link",
    (3, 9): "forbidden",
    (3, 10): "forbidden",
    (3, 13): "forbidden",
    (11, 0): "more links than its TTL",
}

Ancillary = Sequence[tuple[int, int, bytes]]


@dataclass(frozen=True)
class ProbeArrival:
    """A probe that has arrived: which one, when, and how many links it crossed."""

    identifier: int
    number: int
    utc_ns: int
    hops: int


@dataclass(frozen=True)
class ProbeRefusal:
    """That a node did not pass a probe on, as it told the sender: which one, why, and the node's address."""

    identifier: int
    number: int
    why: str
    address: str


def probe_packet(source: str, destination: str, identifier: int) -> bytes:
    """The IPv4 packet of a probe with number 0."""
    from scapy.layers.inet import IP, UDP  # noqa: PLC0415  slow to import, and only the prober's process makes packets

    # scapy's classes do not say of what type they make packets
    packet = cast("Packet", IP(src=source, dst=destination, ttl=INITIAL_TTL))
    datagram = cast("Packet", UDP(sport=PROBE_PORT, dport=PROBE_PORT))
    datagram.add_payload(_PAYLOAD.pack(identifier, 0, _WORD))
    packet.add_payload(datagram)
    return bytes(packet)


def with_number(packet: bytes, number: int) -> bytes:
    """The same probe with another number."""
    identifier, _, _ = _PAYLOAD.unpack_from(packet, _PAYLOAD_AT)
    return packet[:_PAYLOAD_AT] + _PAYLOAD.pack(identifier, number, number ^ _WORD)


def open_sender(netns_path: str) -> socket.socket:
    """A raw socket in a network namespace whose packets are stamped when the first link gets them."""

    def opened() -> socket.socket:
        enter_network(netns_path)
        sender = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        sender.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPING, _SOFTWARE | _TX_SCHED | _ONLY_STAMPS)
        return sender

    return in_own_thread(opened)


def open_receiver(netns_path: str, address: str) -> socket.socket:
    """A socket in a network namespace that receives probes with their time and TTL, and never waits.

    It hears as well what became of the probes from there, since they come from the same address and port.
    """

    def opened() -> socket.socket:
        enter_network(netns_path)
        receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        receiver.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        receiver.setsockopt(socket.IPPROTO_IP, _IP_RECVTTL, 1)
        receiver.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
        receiver.bind((address, PROBE_PORT))
        return receiver

    return in_own_thread(opened)


def send(sender: socket.socket, packet: bytes, destination: str) -> int:
    """Send a probe: when the first link got it, UTC.

    Raises:
        OSError: there is no route, or it leads to nobody who is known as a neighbour.
    """
    while _stamps(sender):  # of an earlier probe, whose neighbour was found after all
        pass
    sender.sendto(packet, (destination, 0))
    if not (ancillary := _stamps(sender)):
        raise OSError(errno.EHOSTUNREACH, "the next hop is no neighbour")
    return _stamp_ns(ancillary, _SO_TIMESTAMPING)


def _stamps(sender: socket.socket) -> Ancillary:
    """When a link got the earliest packet of which that has not been told; nothing if there is none."""
    try:
        return sender.recvmsg(0, _ANCILLARY_BYTE, _MSG_ERRQUEUE | socket.MSG_DONTWAIT)[1]
    except BlockingIOError:
        return ()


def receive(receiver: socket.socket) -> ProbeArrival | None:
    """The next probe that has arrived; None if there is none, or something else came, such as a refusal.

    Raises:
        MachineError: the kernel gave no stamp.
    """
    try:
        payload, ancillary, _, _ = receiver.recvmsg(_RECEIVE_BYTE, _ANCILLARY_BYTE)
    except OSError:
        return None
    if len(payload) != _PAYLOAD.size:
        return None
    (ttl,) = struct.unpack("@i", _content(ancillary, socket.IPPROTO_IP, _IP_TTL))
    identifier, number, _ = _PAYLOAD.unpack(payload)
    return ProbeArrival(identifier, number, _stamp_ns(ancillary, _SO_TIMESTAMPNS), INITIAL_TTL - ttl + 1)


def refusal(receiver: socket.socket) -> ProbeRefusal | None:
    """The next refusal of a probe from the node of a receiver; None if there is none, or it is of something else."""
    try:
        payload, ancillary, _, _ = receiver.recvmsg(_RECEIVE_BYTE, _ANCILLARY_BYTE, _MSG_ERRQUEUE)
    except OSError:
        return None
    if len(payload) < _PAYLOAD.size:
        return None
    error = _content(ancillary, socket.IPPROTO_IP, _IP_RECVERR)
    _, origin, kind, code, _, _, address = _EXTENDED_ERROR.unpack_from(error)
    if origin != _ORIGIN_ICMP:
        return None
    identifier, number, _ = _PAYLOAD.unpack_from(payload)
    why = _REFUSALS.get((kind, code), f"ICMP type {kind}, code {code}")
    return ProbeRefusal(identifier, number, why, socket.inet_ntoa(address))


def _stamp_ns(ancillary: Ancillary, kind: int) -> int:
    stamp: tuple[int, int] = _TIMESPEC.unpack_from(_content(ancillary, socket.SOL_SOCKET, kind))
    return stamp[0] * NS_PER_S + stamp[1]


def _content(ancillary: Ancillary, level: int, kind: int) -> bytes:
    for found_level, found_kind, content in ancillary:
        if (found_level, found_kind) == (level, kind):
            return content
    raise MachineError(
        "probes: the kernel gave no time stamp with a packet, but delays are measured by them; use "
        "--machine guest, or a scenario without probes"
    )
