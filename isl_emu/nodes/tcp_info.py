"""What the kernel counts on TCP connections, and which this process has, whichever library has opened them."""

from __future__ import annotations

import os
import socket
import stat
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

# Source: struct tcp_info, include/uapi/linux/tcp.h
_OPTIONS_AT = 5  # u8 tcpi_options
_HAS_TIMESTAMPS = 1  # TCPI_OPT_TIMESTAMPS
_ACKED_RECEIVED, _ACKED_AT = struct.Struct("=QQ"), 120  # u64 tcpi_bytes_acked, tcpi_bytes_received
_SEGMENTS, _SEGMENTS_AT = struct.Struct("=II"), 136  # u32 tcpi_segs_out, tcpi_segs_in
_SENT_AGAIN, _SENT_AT = struct.Struct("=QQ"), 200  # u64 tcpi_bytes_sent, tcpi_bytes_retrans
_INFO_BYTE = _SENT_AT + _SENT_AGAIN.size


@dataclass(frozen=True)
class TcpCounters:
    """What a connection has carried so far: payload in bytes, and segments.

    Args:
        sent_byte: with what was sent again.
        again_byte: of these, sent again.
        acked_byte: what the other end has confirmed.
        timestamps: whether its segments carry time stamps.
    """

    sent_byte: int
    again_byte: int
    acked_byte: int
    received_byte: int
    segments_out: int
    segments_in: int
    timestamps: bool


def tcp_counters(connection: socket.socket) -> TcpCounters:
    """The counters of a connection; what an older kernel does not tell is 0.

    Raises:
        OSError: it is no open TCP socket.
    """
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTE).ljust(_INFO_BYTE, b"\0")
    sent, again = _SENT_AGAIN.unpack_from(info, _SENT_AT)
    acked, received = _ACKED_RECEIVED.unpack_from(info, _ACKED_AT)
    segments_out, segments_in = _SEGMENTS.unpack_from(info, _SEGMENTS_AT)
    timestamps = bool(info[_OPTIONS_AT] & _HAS_TIMESTAMPS)
    return TcpCounters(sent, again, acked, received, segments_out, segments_in, timestamps)


def own_connections() -> Iterator[socket.socket]:
    """Copies of this process's TCP sockets; each is closed when the next one is asked for."""
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        with suppress(OSError):  # it is closed by now
            if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                with socket.socket(fileno=os.dup(descriptor)) as copy:
                    if copy.family in (socket.AF_INET, socket.AF_INET6) and copy.type == socket.SOCK_STREAM:
                        yield copy


def own_bytes() -> tuple[int, int]:
    """Payload sent (each byte once) and received on all TCP sockets that this process has open now."""
    sent_byte, received_byte = 0, 0
    for connection in own_connections():
        with suppress(OSError):
            counters = tcp_counters(connection)
            sent_byte += counters.sent_byte - counters.again_byte
            received_byte += counters.received_byte
    return sent_byte, received_byte
