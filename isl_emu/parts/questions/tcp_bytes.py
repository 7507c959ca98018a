"""How many bytes a TCP connection has put on the wire and taken from it, as the kernel counts them.

The kernel counts payload and segments; a segment is an IPv4 packet with 20 bytes of IP and 20 of TCP header, and 12
more of options where both ends use time stamps. Options of the first packets (8 bytes) and Ethernet are not counted.
Retransmissions are, as they cross the lasers too.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass

from isl_emu.nodes.tcp_info import tcp_counters

HEADER_BYTE, TIMESTAMP_BYTE = 40, 12


@dataclass(frozen=True)
class WireBytes:
    """What went out and what came in, as IP packets."""

    sent: int = 0
    received: int = 0

    def __add__(self, other: WireBytes) -> WireBytes:
        return WireBytes(self.sent + other.sent, self.received + other.received)


def wire_bytes(connection: socket.socket) -> WireBytes:
    """The bytes of a connection so far; none if its socket is closed."""
    try:
        counters = tcp_counters(connection)
    except OSError:
        return WireBytes()
    header = HEADER_BYTE + (TIMESTAMP_BYTE if counters.timestamps else 0)
    return WireBytes(
        counters.sent_byte + header * counters.segments_out, counters.received_byte + header * counters.segments_in
    )
