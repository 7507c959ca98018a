"""Images and answers on their way: bytes over TCP that wait where they are while there is no path.

Whoever has a parcel connects to whom it is for, says what it is, hears how much of it is there already, and sends the
rest. A connection on which nothing more arrives is given up, and the next one goes on where that ended.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from isl_emu.nodes.namespaces import enter_network, in_own_thread
from isl_emu.runs.endpoints import OBSERVATION_PORT, Endpoint
from isl_emu.timebase import Clock

HEAD = struct.Struct("!QQ")  # the parcel's number, and its size
HELD = struct.Struct("!Q")  # how much of it is there
PORTION_BYTE = 16_384
LOOK_S = 0.5  # between two looks at whether anything arrives


@dataclass(eq=False)
class Parcel:
    """Bytes for a node.

    Args:
        content: what they are, where that matters.
        t_there_ns: when the last byte was there, on the clock.
        held_byte: how much is there.
        wire_byte: what was handed over to TCP, with what had to be sent again.
    """

    number: int
    size_byte: int
    content: bytes | None = None
    t_there_ns: int | None = None
    held_byte: int = 0
    wire_byte: int = 0
    attempts: int = 0
    taken: int = 0  # connections on which it came; of two the older is dead, and brings nothing any more
    there: asyncio.Event = field(default_factory=asyncio.Event)

    def part(self, begin_byte: int, end_byte: int) -> bytes:
        """Some of its bytes."""
        return bytes(end_byte - begin_byte) if self.content is None else self.content[begin_byte:end_byte]


class Post:
    """Carries parcels between nodes; one process speaks for all of them, each in its own network."""

    def __init__(self, endpoints: Mapping[str, Endpoint], clock: Clock):
        self._endpoints, self._clock = endpoints, clock
        self._parcels: dict[int, Parcel] = {}

    async def open(self, names: Iterable[str]) -> None:
        """Let nodes take parcels."""
        for name in names:
            await asyncio.start_server(self._take, sock=in_own_thread(_listen, self._endpoints[name]))

    async def attempt(self, a: str, b: str, parcel: Parcel, stall_ns: int) -> None:
        """Carry a parcel as far as one connection does: to its end, or until nothing has arrived for too long."""
        self._parcels[parcel.number] = parcel
        parcel.attempts += 1
        sending = asyncio.create_task(self._send(a, b, parcel))
        held_byte, since_ns = parcel.held_byte, self._clock.now_ns()
        try:
            while not (await asyncio.wait({sending}, timeout=LOOK_S))[0]:
                if parcel.held_byte != held_byte:
                    held_byte, since_ns = parcel.held_byte, self._clock.now_ns()
                if self._clock.now_ns() - since_ns > stall_ns:
                    break
        finally:
            sending.cancel()
            (ended,) = await asyncio.gather(sending, return_exceptions=True)
        if isinstance(ended, Exception) and not isinstance(ended, (OSError, asyncio.IncompleteReadError)):
            raise ended

    async def _send(self, a: str, b: str, parcel: Parcel) -> None:
        connection = in_own_thread(_connection, self._endpoints[a])
        try:
            place = self._endpoints[b].address, OBSERVATION_PORT
            await asyncio.get_running_loop().sock_connect(connection, place)
        except BaseException:
            connection.close()
            raise
        reader, writer = await asyncio.open_connection(sock=connection)
        try:
            writer.write(HEAD.pack(parcel.number, parcel.size_byte))
            (begin_byte,) = HELD.unpack(await reader.readexactly(HELD.size))
            for first in range(begin_byte, parcel.size_byte, PORTION_BYTE):
                portion = parcel.part(first, min(first + PORTION_BYTE, parcel.size_byte))
                writer.write(portion)
                parcel.wire_byte += len(portion)
                await writer.drain()
            await reader.readexactly(HELD.size)  # all of it is there
        finally:
            writer.transport.abort()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """What a node does with a connection."""
        with suppress(OSError, asyncio.IncompleteReadError):
            number, size_byte = HEAD.unpack(await reader.readexactly(HEAD.size))
            parcel = self._parcels[number]
            parcel.taken += 1
            turn = parcel.taken
            writer.write(HELD.pack(parcel.held_byte))
            while parcel.held_byte < size_byte:
                portion = await reader.read(PORTION_BYTE)
                if not portion or parcel.taken != turn:
                    break
                parcel.held_byte += len(portion)
            else:
                if not parcel.there.is_set():
                    parcel.t_there_ns = self._clock.now_ns()
                    parcel.there.set()
                writer.write(HELD.pack(size_byte))
                await writer.drain()
        writer.close()


def _listen(endpoint: Endpoint) -> socket.socket:
    enter_network(endpoint.netns)
    return socket.create_server((endpoint.address, OBSERVATION_PORT), backlog=128)


def _connection(endpoint: Endpoint) -> socket.socket:
    enter_network(endpoint.netns)
    connection = socket.socket()
    connection.setblocking(False)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # given up, nothing is sent on
    connection.bind((endpoint.address, 0))
    return connection
