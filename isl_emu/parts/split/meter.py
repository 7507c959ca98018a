"""What a process of a split model has computed and sent so far, as it grows.

The bytes are those of TCP's payload, asked of the kernel (TCP_INFO) for the process's own connections, whichever
library has opened them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from isl_emu.nodes.tcp_info import own_connections, tcp_counters
from isl_emu.timebase import Clock

INTERVAL_S = 0.1


def traffic_byte(peers: dict[str, str]) -> dict[str, list[int]]:
    """Bytes acknowledged and received on this process's TCP connections with each peer.

    Args:
        peers: address -> name.
    """
    found = {name: [0, 0] for name in peers.values()}
    for connection in own_connections():
        with suppress(OSError):
            name = peers.get(connection.getpeername()[0])
            if name is not None:
                counters = tcp_counters(connection)
                found[name][0] += counters.acked_byte
                found[name][1] += counters.received_byte
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
