"""How many bytes this process has sent and received over TCP: asked of the kernel, whoever opened the sockets."""

from __future__ import annotations

import os
import socket
import struct
from contextlib import suppress

# Source: include/uapi/linux/tcp.h, struct tcp_info: 8 bytes, 24 of 32 bits, two rates of 64, then these two; and behind
# six of 32 bits, one of 64, and so on, tcpi_bytes_sent and tcpi_bytes_retrans.
_RECEIVED = struct.Struct("=Q")
_RECEIVED_AT, _SENT_AT = 128, 200
_SENT = struct.Struct("=QQ")  # sent, of which sent again
_INFO_BYTE = _SENT_AT + _SENT.size


def tcp_bytes() -> tuple[int, int]:
    """Bytes sent (each counted once) and received on all TCP sockets that are open now, without headers."""
    counts = [_counts(int(name)) for name in os.listdir("/proc/self/fd")]
    return sum(sent for sent, _ in counts), sum(received for _, received in counts)


def _counts(descriptor: int) -> tuple[int, int]:
    """Of one descriptor; none if it is no TCP socket, or gone meanwhile."""
    with suppress(OSError):
        if not os.readlink(f"/proc/self/fd/{descriptor}").startswith("socket:"):
            return 0, 0
        with socket.socket(fileno=os.dup(descriptor)) as copy:
            if copy.family in (socket.AF_INET, socket.AF_INET6) and copy.type == socket.SOCK_STREAM:
                info = copy.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTE)
                if len(info) == _INFO_BYTE:
                    sent, again = _SENT.unpack_from(info, _SENT_AT)
                    return sent - again, _RECEIVED.unpack_from(info, _RECEIVED_AT)[0]
    return 0, 0
