"""The streams between guests on several machines: over TCP, with a relay at each end.

A guest's kernel is behind a wall and has but ends of socket pairs: who had a TCP socket could connect it to elsewhere.
So a relay, a process of its own beside the guest, passes on what comes, in order and to the last byte, over one
connection for each stream. How long that takes changes nothing in exact time: guests wait for what is counted. In real
time frames go ahead of when they are due, and what comes too late is counted.

Connections are proven at both ends by a secret that came through Dask (HMAC, RFC 2104); what goes over them is not
encrypted.

Run as ``python -m isl_emu.cluster.relay PARENT ENDS...``; an end is ``A:B``, two connected sockets that it inherits, or
``A:B:calendar``, where A listens for a guest that looks for its calendar. It ends with its last stream, or its parent.
"""

from __future__ import annotations

import ctypes
import hmac
import os
import secrets
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

from isl_emu.errors import MachineError
from isl_emu.machine.calendar import MESSAGE_BYTE
from isl_emu.machine.calendar_process import READ_BYTE, started_descriptors
from isl_emu.machine.guardian import PR_SET_PDEATHSIG, go_first

BLOCK_BYTE = 256 * 1024
MEET_WITHIN_S, ANSWERED_WITHIN_S = 30.0, 5.0  # all connections of a run; each who calls
HELLO = struct.Struct("<III32s")  # the run's part that calls, the one that is called, which stream, and a nonce
TRUNK, CALENDAR = 0, 1
PROOF_BYTE = 32

Address = tuple[str, int]
Streams = dict[tuple[int, int], socket.socket]
"""Connected sockets, by what they are for and the other part's number."""


def meet(
    own: int, listener: socket.socket, addresses: Sequence[Address], secret: bytes, *, calendar: bool = True
) -> Streams:
    """Connect one part of a run with all others: a trunk with each, and one to the first part's calendar.

    A part calls those with smaller numbers. Who does not know the secret is not listened to.

    Args:
        own: the number of this part.
        addresses: where each part listens.
        calendar: whether there is one.

    Raises:
        MachineError: not all were there in time.
    """
    end_s, count = time.monotonic() + MEET_WITHIN_S, len(addresses)
    called = [(TRUNK, other) for other in range(own)] + ([(CALENDAR, 0)] if own and calendar else [])
    awaited = {(TRUNK, other) for other in range(own + 1, count)}
    awaited |= {(CALENDAR, other) for other in range(1, count)} if own == 0 and calendar else set()
    streams: Streams = {}
    with _closed_if_not_all(streams):
        for kind, other in called:
            streams[kind, other] = _call(own, other, kind, addresses[other], secret, end_s)
        with ThreadPoolExecutor(max(1, len(awaited))) as pool:
            answering = []
            listener.settimeout(0.1)
            while awaited - streams.keys():
                if time.monotonic() > end_s:
                    missing = sorted({other for _, other in awaited - streams.keys()})
                    raise MachineError(
                        f"cluster: guest {own} was not called by guest {missing[0]} within {MEET_WITHIN_S:g} s, but "
                        "workers must reach each other by TCP; let no firewall be between them"
                    )
                with suppress(TimeoutError):
                    answering.append(pool.submit(_answer, listener.accept()[0], own, secret))
                for answer in [one for one in answering if one.done()]:
                    answering.remove(answer)
                    if (found := answer.result()) is None:
                        continue
                    name, connection = found
                    if name in awaited - streams.keys():
                        streams[name] = connection
                    else:
                        connection.close()
    return streams


@contextmanager
def _closed_if_not_all(streams: Streams) -> Iterator[None]:
    try:
        yield
    except BaseException:
        for connection in streams.values():
            connection.close()
        raise


def _call(own: int, other: int, kind: int, address: Address, secret: bytes, end_s: float) -> socket.socket:
    try:
        connection = socket.create_connection(address, max(0.1, end_s - time.monotonic()))
        hello = HELLO.pack(own, other, kind, secrets.token_bytes(32))
        connection.sendall(hello)
        nonce, proof = _read(connection, 32), _read(connection, PROOF_BYTE)
        if not hmac.compare_digest(proof, _proof(secret, b"answer", hello + nonce)):
            raise ConnectionError("it does not know the secret of this run")
        connection.sendall(_proof(secret, b"call", hello + nonce))
    except OSError as error:
        raise MachineError(
            f"cluster: guest {own} cannot reach guest {other} at {address[0]} port {address[1]} ({error}), but workers "
            "must reach each other by TCP; let no firewall be between them"
        ) from None
    return _ready(connection)


def _answer(connection: socket.socket, own: int, secret: bytes) -> tuple[tuple[int, int], socket.socket] | None:
    """What a connection is for, and it; None of one that is a stranger's."""
    connection.settimeout(ANSWERED_WITHIN_S)
    with suppress(OSError):
        hello, nonce = _read(connection, HELLO.size), secrets.token_bytes(32)
        connection.sendall(nonce + _proof(secret, b"answer", hello + nonce))
        known = hmac.compare_digest(_read(connection, PROOF_BYTE), _proof(secret, b"call", hello + nonce))
        other, called, kind, _ = HELLO.unpack(hello)
        if known and called == own:
            return (kind, other), _ready(connection)
    connection.close()
    return None


def _proof(secret: bytes, who: bytes, what: bytes) -> bytes:
    return hmac.digest(secret, who + what, "sha256")


def _read(connection: socket.socket, byte: int) -> bytes:
    data = b""
    while len(data) < byte:
        if not (more := connection.recv(byte - len(data))):
            raise ConnectionError("it hung up")
        data += more
    return data


def _ready(connection: socket.socket) -> socket.socket:
    connection.settimeout(None)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return connection


def pump(source: socket.socket, target: socket.socket) -> None:
    """Pass on all that comes, and the end."""
    with suppress(OSError):
        while data := source.recv(BLOCK_BYTE):
            target.sendall(data)
    _end(source, target)


def pump_messages(source: socket.socket, target: socket.socket) -> None:
    """Pass on what a calendar says: a guest reads whole messages, and with the first answer takes two descriptors."""
    with suppress(OSError):
        answer = _read(source, MESSAGE_BYTE)
        with started_descriptors() as descriptors:
            socket.send_fds(target, [answer], descriptors)
        left = b""
        while data := source.recv(READ_BYTE):
            left += data
            whole = len(left) - len(left) % MESSAGE_BYTE
            target.sendall(left[:whole])
            left = left[whole:]
    _end(source, target)


def _end(source: socket.socket, target: socket.socket) -> None:
    """Nothing more goes this way, and nobody need send any."""
    for connection, how in ((source, socket.SHUT_RD), (target, socket.SHUT_WR)):
        with suppress(OSError):
            connection.shutdown(how)


def serve(ends: Sequence[tuple[socket.socket, socket.socket, bool]]) -> None:
    """Pass on all streams until the last has ended, each way of each by itself: none waits for another.

    Args:
        ends: two sockets of each; if the third is true the first of them listens for a guest, and the other leads to
            its calendar.
    """
    threads = [threading.Thread(target=_serve, args=one) for one in ends]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _serve(near: socket.socket, far: socket.socket, is_calendar: bool) -> None:
    go_first(0)  # guests wait for what we pass on
    if is_calendar:
        with near:
            near, _ = near.accept()
    back = threading.Thread(target=_pump_first, args=(pump_messages if is_calendar else pump, far, near))
    back.start()
    pump(near, far)
    back.join()
    near.close()
    far.close()


def _pump_first(
    how: Callable[[socket.socket, socket.socket], None], source: socket.socket, target: socket.socket
) -> None:
    go_first(0)
    how(source, target)


def main(arguments: Sequence[str]) -> None:
    """Pass on the streams that we have inherited."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent, *ends = arguments
    if os.getppid() != int(parent):  # gone before it could take us with it
        return
    found = []
    for end in ends:
        near, far, *kind = end.split(":")
        found.append((socket.socket(fileno=int(near)), socket.socket(fileno=int(far)), bool(kind)))
    serve(found)


if __name__ == "__main__":
    main(sys.argv[1:])
