"""Transfers by TCP between nodes of a live network, in small programs that start quickly in the guest."""

from __future__ import annotations

from dataclasses import dataclass

from isl_emu.network.net import IslNet

PYTHON = ["/usr/bin/python3", "-S", "-c"]
PATIENCE_S = 60


@dataclass(frozen=True)
class Goodput:
    """Payload bits a second of a transfer: on the whole, and in its best quarter.

    A machine that stands still for a moment lowers the first, and what has piled up meanwhile raises the second; so
    what must not be exceeded is held against the first, and what must be reached against the second.
    """

    whole_bit_s: float
    best_bit_s: float


def bulk_transfer(net: IslNet, source: str, sink: str, byte: int, skipped_byte: int = 0) -> Goodput:
    """Send `byte` by TCP; the goodput from the first byte received, or after `skipped_byte`, to the last."""
    received, _ = _both(net, source, sink, _RECEIVE, [str(skipped_byte)], _SEND, [str(byte)])
    return Goodput(*map(float, received.split()))


def message_times_s(net: IslNet, source: str, sink: str, byte: int, count: int = 20) -> list[float]:
    """How long each of some messages takes until it is received whole and a byte has come back.

    One connection carries them all, so that its window is open after the first.
    """
    out = _both(net, source, sink, _ANSWER, [str(byte)], _ASK, [str(byte), str(count)])[1]
    return [float(word) for word in out.split()]


def _both(net: IslNet, source: str, sink: str, receive: str, receive_words: list[str], send: str,
          send_words: list[str]) -> tuple[str, str]:  # fmt: skip
    """What the programs at the sink and at the source print."""
    address = net.get(sink).address
    receiver = net.get(sink).popen([*PYTHON, receive, address, *receive_words], text=True)
    sender = net.get(source).popen([*PYTHON, _CONNECT + send, address, *send_words], text=True)
    sent, _ = sender.communicate(timeout=PATIENCE_S)
    received, _ = receiver.communicate(timeout=PATIENCE_S)
    return received, sent


_RECEIVE = """
import socket, sys, time
connection = socket.create_server((sys.argv[1], 9001)).accept()[0]
byte, seen = 0, []
while data := connection.recv(1 << 18):
    byte += len(data)
    if byte >= int(sys.argv[2]):
        seen.append((time.monotonic(), byte))
quarter, start, best = (seen[-1][1] - seen[0][1]) / 4, 0, 0.0
for at, received in seen:
    while received - seen[start + 1][1] >= quarter:
        start += 1
    if received - seen[start][1] >= quarter:
        best = max(best, (received - seen[start][1]) / (at - seen[start][0]))
print(8 * (seen[-1][1] - seen[0][1]) / (seen[-1][0] - seen[0][0]), 8 * best)
"""
_ANSWER = """
import socket, sys
connection = socket.create_server((sys.argv[1], 9001)).accept()[0]
byte, got = int(sys.argv[2]), 0
while data := connection.recv(1 << 16):
    got += len(data)
    if got == byte:
        connection.sendall(b"x")
        got = 0
"""
_CONNECT = """
import socket, sys, time
open("/proc/sys/net/ipv4/tcp_slow_start_after_idle", "w").write("0")
while True:
    try:
        connection = socket.create_connection((sys.argv[1], 9001))
        break
    except ConnectionRefusedError:
        time.sleep(0.05)
"""
_SEND = """
part, left = bytes(1 << 20), int(sys.argv[2])
while left:
    connection.sendall(part[:left])
    left -= min(left, len(part))
"""
_ASK = """
message = bytes(int(sys.argv[2]))
for _ in range(int(sys.argv[3])):
    begun = time.monotonic()
    connection.sendall(message)
    connection.recv(1)
    print(time.monotonic() - begun)
    time.sleep(0.02)
"""
