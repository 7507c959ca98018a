"""Transfers by TCP between nodes of a live network, in small programs that start quickly in the guest."""

from __future__ import annotations

from isl_emu.network.net import IslNet

PYTHON = ["/usr/bin/python3", "-S", "-c"]
PATIENCE_S = 60


def bulk_transfer(net: IslNet, source: str, sink: str, byte: int, skipped_byte: int = 0) -> float:
    """Send `byte` by TCP; payload bits a second from the first byte received, or after `skipped_byte`, to the last."""
    return float(_both(net, source, sink, _RECEIVE, [str(skipped_byte)], _SEND, [str(byte)])[0])


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
byte = len(connection.recv(1 << 16))
begun = time.monotonic() if sys.argv[2] == "0" else None
counted = 0
while data := connection.recv(1 << 18):
    byte += len(data)
    if begun is not None:
        counted += len(data)
    elif byte >= int(sys.argv[2]):
        begun = time.monotonic()
print(8 * counted / (time.monotonic() - begun))
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
