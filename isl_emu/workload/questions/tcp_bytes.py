"""How many bytes a TCP connection has put on the wire and taken from it, as the kernel counts them.

The kernel counts payload and segments; a segment is an IPv4 packet with 20 bytes of IP and 20 of TCP header, and 12
more of options where both ends use time stamps. Options of the first packets (8 bytes) and Ethernet are not counted.
Retransmissions are, as they cross the lasers too.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

# Source: struct tcp_info, include/uapi/linux/tcp.h
_INFO_BYTE = 232
_OPTIONS_AT = 5  # u8 tcpi_options
_HAS_TIMESTAMPS = 1  # TCPI_OPT_TIMESTAMPS
_RECEIVED = struct.Struct("=Q")  # u64 tcpi_bytes_received
_RECEIVED_AT = 128
_SEGMENTS = struct.Struct("=II")  # u32 tcpi_segs_out, tcpi_segs_in
_SEGMENTS_AT = 136
_SENT_AT = 200  # u64 tcpi_bytes_sent
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
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTE)
    except OSError:
        return WireBytes()
    info = info.ljust(_INFO_BYTE, b"\0")  # an older kernel tells less
    out, into = _SEGMENTS.unpack_from(info, _SEGMENTS_AT)
    (sent,), (received,) = (_RECEIVED.unpack_from(info, at) for at in (_SENT_AT, _RECEIVED_AT))
    header = HEADER_BYTE + (TIMESTAMP_BYTE if info[_OPTIONS_AT] & _HAS_TIMESTAMPS else 0)
    return WireBytes(sent + header * out, received + header * into)
