"""What a process of a split model has computed and sent so far, as it grows.

The bytes are those of TCP's payload, asked of the kernel (TCP_INFO) for the process's own connections, whichever
library has opened them.
"""

from __future__ import annotations

import os
import socket
import stat
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from isl_emu.timebase import Clock

INTERVAL_S = 0.1
# Source: include/uapi/linux/tcp.h, struct tcp_info: tcpi_bytes_acked and tcpi_bytes_received, since Linux 4.2
_BYTES = struct.Struct("=QQ")
_BYTES_AT = 120
_TCP_INFO_BYTE = _BYTES_AT + _BYTES.size


def traffic_byte(peers: dict[str, str]) -> dict[str, list[int]]:
    """Bytes acknowledged and received on this process's TCP connections with each peer.

    Args:
        peers: address -> name.
    """
    found = {name: [0, 0] for name in peers.values()}
    for connection in _own_connections():
        with connection, suppress(OSError):
            name = peers.get(connection.getpeername()[0])
            if name is not None:
                info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTE)
                for at, count in enumerate(_BYTES.unpack_from(info, _BYTES_AT)):
                    found[name][at] += count
    return found


def start_meter(
    satellite: str, peers: dict[str, str], clock: Clock, record: Callable[[dict[str, Any]], None]
) -> threading.Thread:
    """Write down, as often as it changes, what this process has computed and sent, until the process ends."""

    def sample() -> None:
        before: dict[str, list[int]] = {}
        while True:
            traffic = traffic_byte(peers)
            if traffic != before:
                line = {"satellite": satellite, "t_ns": clock.now_ns(), "cpu_ns": time.process_time_ns()}
                record({**line, "peers": traffic})
                before = traffic
            time.sleep(INTERVAL_S)

    thread = threading.Thread(target=sample, daemon=True, name="meter")
    thread.start()
    return thread


def _own_connections() -> Iterator[socket.socket]:
    """Copies of this process's TCP sockets."""
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        try:
            if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                continue
            copy = socket.socket(fileno=os.dup(descriptor))
        except OSError:  # it is closed by now
            continue
        if copy.family == socket.AF_INET and copy.type == socket.SOCK_STREAM:
            yield copy
        else:
            copy.close()
