"""How ranks find each other: every satellite of a job listens on one port, and whoever connects says what for.

A caller of the roll is answered and sent away. A rank that opens a line leaves a number (which ring it belongs to) and
who it is; its socket is kept until the rank beside it asks for it.
"""

from __future__ import annotations

import asyncio
import selectors
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress

from isl_emu.nodes.namespaces import enter_network, in_own_thread
from isl_emu.runs.endpoints import FIRST_TRAINING_PORT
from isl_emu.timebase import Clock

_HELLO = struct.Struct("!4sII")  # what for; the number of the ring; who
_ROLL, _LINE, _HERE = b"roll", b"line", b"here"
_BACKLOG = 128
_LOOK_S = 0.2


def port_of(job: int) -> int:
    """The port on which the satellites of a training job listen."""
    return FIRST_TRAINING_PORT + job


def open_listener(address: str, port: int, netns: str | None = None) -> socket.socket:
    """A listening socket at a satellite's address, in its network namespace if one is named."""

    def opened() -> socket.socket:
        if netns is not None:
            enter_network(netns)
        return socket.create_server((address, port), backlog=_BACKLOG)

    return in_own_thread(opened)


class Reception:
    """A thread that receives whoever connects to any of some listening sockets.

    Args:
        listeners: by the number of the rank that listens.
    """

    def __init__(self, listeners: Mapping[int, socket.socket]):
        self._selector = selectors.DefaultSelector()
        for rank, listener in listeners.items():
            listener.setblocking(False)
            self._selector.register(listener, selectors.EVENT_READ, (rank, True))
        self._lines: dict[tuple[int, int, int], socket.socket] = {}
        self._arrived = threading.Condition()
        self._ended = False
        self._thread = threading.Thread(target=self._receive, name="reception", daemon=True)

    def __enter__(self) -> Reception:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            _socket_of(key).close()
        self._selector.close()
        for line in self._lines.values():
            line.close()

    def line(self, rank: int, ring: int, source: int, clock: Clock, deadline_ns: int) -> socket.socket:
        """The line that rank `source` of ring number `ring` has opened to `rank`, once it has.

        Raises:
            TimeoutError: it has not until the deadline.
        """
        with self._arrived:
            while (rank, ring, source) not in self._lines:
                if clock.now_ns() >= deadline_ns or self._ended:
                    raise TimeoutError("it opened no line")
                self._arrived.wait(min(clock.timeout_s(deadline_ns), _LOOK_S))
            return self._lines.pop((rank, ring, source))

    def forget(self, ring: int) -> None:
        """Close lines of earlier rings that nobody asked for."""
        with self._arrived:
            for key in [key for key in self._lines if key[1] < ring]:
                self._lines.pop(key).close()

    def _receive(self) -> None:
        while not self._ended:
            for key, _ in self._selector.select(_LOOK_S):
                rank, listens = key.data
                if listens:
                    with suppress(OSError):  # who gave up meanwhile is not there any more
                        caller, _ = _socket_of(key).accept()
                        caller.setblocking(False)
                        self._selector.register(caller, selectors.EVENT_READ, (rank, False))
                else:
                    self._hear(rank, _socket_of(key))

    def _hear(self, rank: int, caller: socket.socket) -> None:
        """Read what a caller wants, once all of it is there."""
        try:
            hello = caller.recv(_HELLO.size, socket.MSG_PEEK)
            if 0 < len(hello) < _HELLO.size:
                return
            self._selector.unregister(caller)
            hello = caller.recv(_HELLO.size)
            what, ring, source = _HELLO.unpack(hello) if len(hello) == _HELLO.size else (b"", 0, 0)
            if what == _LINE:
                with self._arrived:
                    self._lines[rank, ring, source] = caller
                    self._arrived.notify_all()
                return
            if what == _ROLL:
                caller.send(_HERE)
            caller.close()
        except OSError:
            with suppress(KeyError):
                self._selector.unregister(caller)
            caller.close()


def _socket_of(key: selectors.SelectorKey) -> socket.socket:
    assert isinstance(key.fileobj, socket.socket), "nothing else is registered"
    return key.fileobj


def open_line(own: str, address: str, port: int, ring: int, source: int, timeout_s: float) -> socket.socket:
    """A connection to the rank at `address`, for what rank `source` of ring number `ring` sends to it.

    Raises:
        OSError: it cannot be reached.
    """
    line = socket.create_connection((address, port), timeout_s, (own, 0))
    try:
        line.sendall(_HELLO.pack(_LINE, ring, source))
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        line.setblocking(False)
    except OSError:
        line.close()
        raise
    return line


def call_roll(netns: str | None, own: str, addresses: Mapping[str, str], port: int, timeout_s: float) -> set[str]:
    """Those of some satellites who answer a call from another one over the network.

    Args:
        netns: the caller's network namespace; None for this thread's.
        own: the caller's address.
        addresses: of those who are called, by name.
    """

    async def exchange_words(address: str) -> bool:
        reader, writer = await asyncio.open_connection(address, port, local_addr=(own, 0))
        try:
            writer.write(_HELLO.pack(_ROLL, 0, 0))
            return await reader.readexactly(len(_HERE)) == _HERE
        finally:
            writer.close()

    async def answers(address: str) -> bool:
        try:
            return await asyncio.wait_for(exchange_words(address), timeout_s)
        except (OSError, asyncio.TimeoutError, asyncio.IncompleteReadError):
            return False

    async def call_all() -> set[str]:
        heard = await asyncio.gather(*map(answers, addresses.values()))
        return {name for name, here in zip(addresses, heard, strict=True) if here}

    def call() -> set[str]:
        if netns is not None:
            enter_network(netns)
        return asyncio.run(call_all())

    return in_own_thread(call)


def largest_group(names: Iterable[str], call: Callable[[str, Sequence[str]], set[str]]) -> list[str]:
    """The largest group of satellites that reach each other, in the order of their names.

    One calls all others; those who answer belong to it; of those who do not, the next one calls, and so on. Of equal
    groups the first wins. That whoever reaches a third over a second reaches it directly is taken for granted.

    Args:
        call: (caller, those who are called) -> those who answered.
    """
    left, groups = list(names), []
    while left:
        caller, *others = left
        answered = call(caller, others) if others else set()
        groups.append([caller, *(name for name in others if name in answered)])
        left = [name for name in others if name not in answered]
    return max(groups, key=len, default=[])
