"""One TCP flow, looked at from inside: its window, round trip and losses every 10 ms. Runs as a program in two nodes.

python3 tcp_flow.py receive
python3 tcp_flow.py send RECEIVER CSV SECONDS [WARNED]     WARNED: it holds back so long before its path changes
"""

from __future__ import annotations

import json
import select
import socket
import struct
import sys
import threading
import time
import urllib.request

PORT = 5001
SAMPLE_S = 0.01
ASK_S = 5.0
# struct tcp_info of Linux's uapi/linux/tcp.h up to tcpi_reord_seen, and the places of what is written down
TCP_INFO = "=8B24I4Q6I4Q2I2Q2I"
FIELDS = {"state": 1, "rtt_us": 23, "window": 26, "sent_again": 31, "acked_byte": 34, "duplicates": 50, "reordered": 51}
SEGMENT_BYTE = 1380  # of payload, as in Hypatia's ns-3; 12 more are TCP's timestamps
RESUME_S = 0.005  # after the change
SO_MAX_PACING_RATE = 47  # of Linux's asm-generic/socket.h
RESUME_BYTE_S = 2_450_000  # 98 % of what handover.toml's dish sends


def receive() -> None:
    """Take all that comes, over any number of connections."""
    listener = socket.create_server(("0.0.0.0", PORT))
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=_take_all, args=(connection,), daemon=True).start()


def _take_all(connection: socket.socket) -> None:
    while connection.recv(1 << 16):
        pass


def send(receiver: str, csv: str, seconds: float, warned_s: float) -> None:
    """Send as much as TCP lets through, and write a line of `FIELDS` every 10 ms."""
    connection = socket.socket()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT_BYTE + 12)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, 1)  # what waits, waits here
    connection.connect((receiver, PORT))
    connection.setblocking(False)
    begun_s = time.time()
    block = bytes(10 * SEGMENT_BYTE)
    with open(csv, "w", buffering=1, encoding="utf-8") as lines:
        lines.write(",".join(("unix_s", *FIELDS)) + "\n")
        sample_s = ask_s = begun_s
        was_held, pauses = False, []
        while (now_s := time.time()) < begun_s + seconds:
            if now_s >= sample_s:
                size = struct.calcsize(TCP_INFO)
                info = struct.unpack(TCP_INFO, connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, size))
                lines.write(",".join([f"{now_s:.6f}", *(str(info[place]) for place in FIELDS.values())]) + "\n")
                sample_s += SAMPLE_S
            if warned_s and now_s >= ask_s:  # a node is told of 1,000 instants
                pauses, ask_s = _pauses(receiver, warned_s), now_s + ASK_S
            held = any(begin_s <= now_s < end_s for begin_s, end_s in pauses)
            if was_held and not held:  # its whole window at once would overflow the queue
                connection.setsockopt(socket.SOL_SOCKET, SO_MAX_PACING_RATE, RESUME_BYTE_S)
            was_held = held
            _, writable, _ = select.select([], [] if held else [connection], [], max(0.0, sample_s - now_s))
            if writable:
                connection.send(block)


def _pauses(receiver: str, warned_s: float) -> list[tuple[float, float]]:
    """When to hold back: around each end of a way to the receiver that the node is told of (docs/nodes.md)."""
    with urllib.request.urlopen(f"http://169.254.169.254/path/{receiver}") as answer:
        ways = json.load(answer)["ways"]
    with urllib.request.urlopen("http://169.254.169.254/now") as answer:
        now = json.load(answer)
    start_s = time.time() - now["t_ns"] / 1e9
    changes = [(old["until_ns"], new["from_ns"]) for old, new in zip(ways, ways[1:]) if old["nodes"] != new["nodes"]]
    return [(start_s + end_ns / 1e9 - warned_s, start_s + begin_ns / 1e9 + RESUME_S) for end_ns, begin_ns in changes]


if sys.argv[1] == "receive":
    receive()
else:
    send(sys.argv[2], sys.argv[3], float(sys.argv[4]), float(sys.argv[5]) if len(sys.argv) > 5 else 0.0)
