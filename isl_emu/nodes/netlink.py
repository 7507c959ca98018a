"""rtnetlink sockets, one in each network namespace: messages out, refusals and dumps in.

A kernel handles every message of a send before the send returns, and reports each refusal even when nobody asked for
an acknowledgement. So changes go out in large sends without acknowledgements, and whatever can be read afterwards is
a refusal. A send costs more than a message, so what is for one namespace goes out in one (`Dispatch`).
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial

import numpy as np

from isl_emu.errors import NetworkError

NLMSG_ERROR, NLMSG_DONE = 2, 3  # linux/netlink.h
NLM_F_REQUEST, NLM_F_DUMP_INTR, NLM_F_DUMP = 0x1, 0x10, 0x300
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE = 0x100, 0x200, 0x400
NLM_F_ACK_TLVS = 0x200
NLMSGERR_ATTR_MSG = 1
SOL_NETLINK, NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK = 270, 10, 11, 12
NLA_TYPE_MASK = 0x3FFF

HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
MESSAGE = [("length", "u4"), ("type", "u2"), ("flags", "u2"), ("sequence", "u4"), ("port", "u4")]  # the same
ATTRIBUTE = struct.Struct("=HH")  # nlattr: length, type
SEND_BYTE = 32_768  # fits every socket buffer; longer sends gain nothing
PATIENT_ROWS, PATIENT_TRIALS = 64, 10_000  # at once, so that a socket holds all refusals; a trial takes 50 us or so
RECEIVE_BYTE = 262_144  # more than the kernel puts into one part of a dump
BY_HAND = "leave tc and ip alone during a run"


@dataclass(frozen=True)
class Refusal:
    """A message that the kernel refused: its sequence number, errno, and the kernel's own words if it gave any."""

    sequence: int
    errno: int
    text: str

    def __str__(self) -> str:
        return f"{os.strerror(self.errno)} ({self.text})" if self.text else os.strerror(self.errno)


class Netlink:
    """One rtnetlink socket; it speaks to the network namespace in which its thread was when it was made.

    Args:
        port: by which the kernel is to know it; 0 for any.

    Raises:
        OSError: another socket in this namespace has the port.
    """

    def __init__(self, port: int = 0) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        try:
            self._socket.bind((port, 0))
        except OSError:
            self._socket.close()
            raise
        for option in (NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK):
            self._socket.setsockopt(SOL_NETLINK, option, 1)

    @property
    def port(self) -> int:
        """The number by which the kernel knows this socket."""
        address: tuple[int, int] = self._socket.getsockname()
        return address[0]

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def send_rows(self, rows: np.ndarray) -> None:
        """Send an array of equally long messages; read `refusals` afterwards."""
        data = np.ascontiguousarray(rows).data.cast("B")
        step = max(SEND_BYTE // rows.itemsize, 1) * rows.itemsize
        for start in range(0, len(data), step):
            self._socket.send(data[start : start + step])

    def send_parts(self, parts: Sequence[memoryview]) -> None:
        """Send messages that lie in several pieces of memory, at once if they are not too many."""
        if sum(map(len, parts)) <= SEND_BYTE:
            self._socket.sendmsg(parts)
            return
        for part in parts:
            length = HEADER.unpack_from(part)[0]  # of all messages of a piece
            length += -length % 4
            self.send(bytes(part[start : start + length]) for start in range(0, len(part), length))

    def send(self, messages: Iterable[bytes]) -> None:
        """Send messages of any length; read `refusals` afterwards."""
        chunk = bytearray()
        for one in messages:
            if len(chunk) + len(one) > SEND_BYTE:
                self._socket.send(chunk)
                chunk.clear()
            chunk += one
        if chunk:
            self._socket.send(chunk)

    def refusals(self) -> list[Refusal]:
        """What the kernel refused since the last call; empty when all was well."""
        found: list[Refusal] = []
        while True:
            try:
                data = self._socket.recv(RECEIVE_BYTE, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return found
            found += [refusal for kind, flags, body in split_messages(data) if (refusal := _refusal(kind, flags, body))]

    def demand(self, messages: Iterable[bytes], where: str, allowed: Container[int] = ()) -> None:
        """Send messages of which none may be refused.

        Args:
            allowed: for which errno nevertheless.

        Raises:
            NetworkError: one was, with `where` and the kernel's reason.
        """
        self.send(messages)
        if refused := [refusal for refusal in self.refusals() if refusal.errno not in allowed]:
            raise NetworkError(
                f"{where}: the kernel's answer is {refused[0]}, but every setting is needed; run isl-emu doctor"
            )

    def dump(self, kind: int, body: bytes) -> list[bytes]:
        """All objects of a kind in this namespace, as message bodies; asked again if they changed meanwhile."""
        while True:
            self._socket.send(message(kind, NLM_F_DUMP, body))
            bodies, whole = self._receive_dump()
            if whole:
                return bodies

    def _receive_dump(self) -> tuple[list[bytes], bool]:
        bodies: list[bytes] = []
        seen = 0
        while True:
            data, offset = self._socket.recv(RECEIVE_BYTE), 0
            while offset + HEADER.size <= len(data):  # plainly, as there are some ten thousand a second
                length, kind, flags, _, _ = HEADER.unpack_from(data, offset)
                body = data[offset + HEADER.size : offset + length]
                offset += length + -length % 4
                seen |= flags
                if kind not in (NLMSG_ERROR, NLMSG_DONE):
                    bodies.append(body)
                elif refusal := _refusal(kind, flags, body):
                    raise NetworkError(
                        f"netlink: a dump ended with {refusal}, but it must end well; run isl-emu doctor"
                    )
                elif kind == NLMSG_DONE:
                    return bodies, not seen & NLM_F_DUMP_INTR


def change_here(messages: Iterable[bytes], where: str) -> None:
    """Send messages to the network that the calling thread is in; none may be refused.

    Raises:
        NetworkError: one was, with `where` and the kernel's reason.
    """
    with closing(Netlink()) as netlink:
        netlink.demand(messages, where)


@dataclass(frozen=True)
class Batch:
    """Messages of one layout, each for a node.

    Args:
        node: whose kernel tables each changes; shape (C,).
        rows: the messages; shape (C,).
        describe: what the message of an index sets, for an error.
    """

    node: np.ndarray
    rows: np.ndarray
    describe: Callable[[int], str]

    def add_parts(self, parts: dict[int, list[memoryview]]) -> None:
        """Add each node's messages, in their order, to its parts."""
        if not len(self.rows):
            return
        order = np.argsort(self.node, kind="stable")
        node, size = self.node[order], self.rows.itemsize
        data = self.rows[order].data.cast("B")
        starts = np.flatnonzero(np.diff(node, prepend=-1))
        stops = [*starts[1:].tolist(), len(node)]
        for where, start, stop in zip(node[starts].tolist(), starts.tolist(), stops, strict=True):
            parts.setdefault(where, []).append(data[start * size : stop * size])


class Dispatch:
    """Sends batches to the sockets of many nodes and raises what any of them refuses."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._names: Sequence[str] = ()
        self._sockets: Sequence[Netlink] = ()

    def watch(self, names: Sequence[str], sockets: Sequence[Netlink]) -> None:
        """Take the nodes that messages are sent to: their names and the sockets in them."""
        self._names, self._sockets = names, sockets
        for one in sockets:
            self._epoll.register(one, select.EPOLLIN)

    def close(self) -> None:
        """Stop watching."""
        self._epoll.close()

    def send(self, *batches: Batch, allowed: Container[int] = (), remedy: str = BY_HAND) -> None:
        """Send all messages; those of one node in the order of the batches.

        Args:
            allowed: for which errno a message may be refused.
            remedy: what helps where another is.

        Raises:
            NetworkError: a message was refused.
        """
        for name, refused in self._refused(batches):
            if refused.errno not in allowed:
                raise _unset(name, batches, refused, remedy)

    def send_patiently(self, batch: Batch) -> None:
        """Send messages for which a kernel may have no memory at once, and send these again until it has.

        What a route with headers needs for each CPU is set aside by the kernel in the background, a little at a time.

        Raises:
            NetworkError: a message was refused otherwise, or again and again.
        """
        for start in range(0, len(batch.rows), PATIENT_ROWS):
            left = np.arange(start, min(start + PATIENT_ROWS, len(batch.rows)))
            for trial in range(PATIENT_TRIALS + 1):
                describe = partial(_described_of, batch, left)
                some = Batch(batch.node[left], batch.rows[left], describe)
                refused = list(self._refused([some]))
                for name, refusal in refused:
                    if refusal.errno != errno.ENOMEM or trial == PATIENT_TRIALS:
                        raise _unset(name, [some], refusal)
                if not refused:
                    break
                left = left[sorted(refusal.sequence for _, refusal in refused)]
                os.sched_yield()  # no time passes, and the kernel's own threads have their turn

    def _refused(self, batches: Sequence[Batch]) -> Iterator[tuple[str, Refusal]]:
        """Send all messages: what of them is refused, and where."""
        parts: dict[int, list[memoryview]] = {}
        first = 0
        for batch in batches:
            batch.rows["sequence"] = np.arange(first, first + len(batch.rows))
            batch.add_parts(parts)
            first += len(batch.rows)
        for node, messages in parts.items():
            self._sockets[node].send_parts(messages)
        ready = {descriptor for descriptor, _ in self._epoll.poll(0)} if parts else set()
        for name, one in zip(self._names, self._sockets, strict=True) if ready else ():
            if one.fileno() in ready:
                yield from ((name, refusal) for refusal in one.refusals())


def _described_of(batch: Batch, rows: np.ndarray, index: int) -> str:
    return batch.describe(int(rows[index]))


def _unset(name: str, batches: Sequence[Batch], refused: Refusal, remedy: str = BY_HAND) -> NetworkError:
    return NetworkError(
        f"{name}: {_described(batches, refused.sequence)} cannot be set ({refused}), but the plan needs it; {remedy}"
    )


def _described(batches: Sequence[Batch], sequence: int) -> str:
    """What the message with a sequence number sets."""
    for batch in batches:
        if sequence < len(batch.rows):
            return batch.describe(sequence)
        sequence -= len(batch.rows)
    return "a setting"


def message(kind: int, flags: int, body: bytes, sequence: int = 0) -> bytes:
    """One netlink request."""
    return HEADER.pack(HEADER.size + len(body), kind, NLM_F_REQUEST | flags, sequence, 0) + body


def attribute(kind: int, payload: bytes) -> bytes:
    """One attribute, padded to a multiple of 4 bytes."""
    return ATTRIBUTE.pack(ATTRIBUTE.size + len(payload), kind) + payload + bytes(-len(payload) % 4)


def u32(kind: int, value: int) -> bytes:
    """An attribute that holds an unsigned number of 32 bits."""
    return attribute(kind, struct.pack("=I", value))


def joined(*parts: bytes | np.ndarray) -> np.ndarray:
    """Rows of bytes, put together from the left: what is the same in all rows, and what is in each; uint8, (C, bytes).

    Args:
        parts: bytes, or arrays of any type, shape (C,) or (C, n); at least one array.
    """
    count = next(len(part) for part in parts if not isinstance(part, bytes))
    pieces = [
        np.broadcast_to(np.frombuffer(part, np.uint8), (count, len(part))) if isinstance(part, bytes) else _bytes(part)
        for part in parts
    ]
    return np.concatenate(pieces, axis=1)


def attribute_rows(kind: int, *payload: bytes | np.ndarray) -> np.ndarray:
    """In each row one attribute, as of `attribute`; uint8, (C, bytes)."""
    inside = joined(*payload)
    length = inside.shape[1]
    return joined(ATTRIBUTE.pack(ATTRIBUTE.size + length, kind), inside, bytes(-length % 4))


def u32_rows(kind: int, values: np.ndarray) -> np.ndarray:
    """In each row an attribute that holds one of `values`, (C,), as a number of 32 bits."""
    return attribute_rows(kind, values.astype(np.uint32))


def message_rows(kind: int, flags: int, *body: bytes | np.ndarray) -> np.ndarray:
    """In each row one request, as of `message`: what `Batch` and `Netlink.send_rows` take; shape (C,)."""
    inside = joined(*body)
    rows = joined(message(kind, flags, bytes(inside.shape[1]))[: HEADER.size], inside)
    messages: np.ndarray = rows.view([*MESSAGE, ("body", "V", inside.shape[1])])[:, 0]
    return messages


def repeated(one: bytes, count: int) -> np.ndarray:
    """The same request in each row."""
    rows: np.ndarray = np.frombuffer(one * count, [*MESSAGE, ("body", "V", len(one) - HEADER.size)]).copy()
    return rows


def _bytes(rows: np.ndarray) -> np.ndarray:
    width = rows.dtype.itemsize * int(np.prod(rows.shape[1:]))
    return np.ascontiguousarray(rows).view(np.uint8).reshape(len(rows), width)


def split_messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """The messages in what was received: type, flags, body."""
    offset = 0
    while offset + HEADER.size <= len(data):
        length, kind, flags, _, _ = HEADER.unpack_from(data, offset)
        yield kind, flags, data[offset + HEADER.size : offset + length]
        offset += length + -length % 4


def split_attributes(data: bytes) -> dict[int, bytes]:
    """The attributes in a body after its fixed part: type to payload."""
    found: dict[int, bytes] = {}
    offset = 0
    while offset + ATTRIBUTE.size <= len(data):
        length, kind = ATTRIBUTE.unpack_from(data, offset)
        if length < ATTRIBUTE.size:
            break
        found[kind & NLA_TYPE_MASK] = data[offset + ATTRIBUTE.size : offset + length]
        offset += length + -length % 4
    return found


def _refusal(kind: int, flags: int, body: bytes) -> Refusal | None:
    if kind not in (NLMSG_ERROR, NLMSG_DONE) or len(body) < 4:
        return None
    error = struct.unpack_from("=i", body)[0]
    if error >= 0:
        return None
    if kind == NLMSG_DONE:
        return Refusal(0, -error, "")
    sequence = HEADER.unpack_from(body, 4)[3]
    words = split_attributes(body[4 + HEADER.size :]) if flags & NLM_F_ACK_TLVS else {}
    return Refusal(sequence, -error, words.get(NLMSGERR_ATTR_MSG, b"").rstrip(b"\0").decode(errors="replace"))
