"""ICMP echo requests and replies, built and dissected with Scapy.

Scapy builds each pair's request once. Sending another sequence number leaves the checksum as it is, because the payload
begins with the complement of the sequence number: in one's complement arithmetic the two always add up to the same.
"""

from __future__ import annotations

import logging
import struct
from dataclasses import dataclass

logging.getLogger("scapy").setLevel(logging.CRITICAL)  # its warnings are about the machine's own routes, not about ours

from scapy.layers.inet import ICMP, IP  # noqa: E402

from isl_emu.results.records import PROBE_PAYLOAD_BYTE  # noqa: E402

SEQ_COUNT = 1 << 16  # the sequence number has 16 bits
INITIAL_TTL = 64  # Linux's default (net.ipv4.ip_default_ttl), and what we send with
_ECHO_REPLY = 0
_SEQ_AT = 20 + 6  # after an IPv4 header without options: type, code, checksum and identifier


@dataclass(frozen=True)
class EchoReply:
    """What a reply says: which request it answers, and how many links it crossed."""

    identifier: int
    seq: int
    hops: int


def echo_request(source: str, destination: str, identifier: int) -> bytes:
    """The IPv4 packet of a pair's echo request with sequence number 0."""
    payload = b"\xff\xff" + bytes(PROBE_PAYLOAD_BYTE - 2)
    header = IP(src=source, dst=destination, ttl=INITIAL_TTL) / ICMP(type="echo-request", id=identifier, seq=0)
    return bytes(header / payload)


def with_seq(request: bytes, seq: int) -> bytes:
    """The same request with another sequence number, modulo 65,536."""
    seq %= SEQ_COUNT
    return request[:_SEQ_AT] + struct.pack("!HH", seq, SEQ_COUNT - 1 - seq) + request[_SEQ_AT + 4 :]


def read_reply(packet: bytes) -> EchoReply | None:
    """The echo reply in an IPv4 packet, or None if it is something else."""
    ip = IP(packet)
    if ICMP not in ip or ip[ICMP].type != _ECHO_REPLY:
        return None
    return EchoReply(ip[ICMP].id, ip[ICMP].seq, INITIAL_TTL - ip.ttl + 1)
