"""pcapng files, as bytes: sections, link ends, names, packets and counts (draft-ietf-opsawg-pcapng). A pure module.

Written here, since no library writes all of it: times in nanoseconds, directions, comments, names, counts of drops.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

SECTION, INTERFACE, NAMES, STATISTICS, PACKET = 0x0A0D0D0A, 1, 4, 5, 6  # types of blocks
BYTE_ORDER, ANY_LENGTH = 0x1A2B3C4D, -1
ETHERNET = 1  # LINKTYPE_ETHERNET
COMMENT, USER_APPLICATION = 1, 4
IF_NAME, IF_DESCRIPTION, IF_MAC, IF_SPEED, IF_TSRESOL, IF_FILTER = 2, 3, 6, 8, 9, 11
NANOSECONDS = 9  # a resolution of 10 to the power of minus that
PACKET_FLAGS, INBOUND, OUTBOUND = 2, 1, 2
BEGIN, END, RECEIVED, DROPPED = 2, 3, 4, 5  # of statistics
NAME_IPV4, NAME_IPV6 = 1, 2
FILTER_AS_TEXT = b"\0"


@dataclass(frozen=True)
class End:
    """A link end as a file has it.

    Args:
        mac: its hardware address.
        speed_bit_s: of what is sent from it; 0 if that is never.
        filter: in words; empty without one.
    """

    name: str
    description: str
    mac: bytes
    speed_bit_s: int
    snap_byte: int
    filter: str = ""


def head(comments: Iterable[str], application: str, ends: Sequence[End], names: Mapping[str, Sequence[str]]) -> bytes:
    """The beginning of a file: its section, link ends, and the addresses of each node by its name."""
    section = struct.pack("<IHHq", BYTE_ORDER, 1, 0, ANY_LENGTH)
    section += _options([*((COMMENT, one.encode()) for one in comments), (USER_APPLICATION, application.encode())])
    return _block(SECTION, section) + b"".join(map(_interface, ends)) + _names(names)


def packet(end: int, utc_ns: int, data: bytes, length: int, *, outbound: bool, comment: str | None = None) -> bytes:
    """A packet at a link end.

    Args:
        end: its number in the file.
        data: what is kept of it; `length` is its own.
        outbound: whether it is sent from there.
    """
    body = struct.pack("<IIIII", end, utc_ns >> 32, utc_ns & 0xFFFFFFFF, len(data), length) + _padded(data)
    flags = struct.pack("<I", OUTBOUND if outbound else INBOUND)
    comments = [] if comment is None else [(COMMENT, comment.encode())]
    return _block(PACKET, body + _options([*comments, (PACKET_FLAGS, flags)]))


def statistics(end: int, begin_ns: int, end_ns: int, received: int, dropped: int) -> bytes:
    """What was counted at a link end, at the end of a file; times are UTC."""
    options = [(BEGIN, _time(begin_ns)), (END, _time(end_ns))]
    options += [(RECEIVED, struct.pack("<Q", received)), (DROPPED, struct.pack("<Q", dropped))]
    return _block(STATISTICS, struct.pack("<I", end) + _time(end_ns) + _options(options))


class Mark(NamedTuple):
    """A packet, or what was counted, in a file of ours; they sort by time, and then as ours lie in a file.

    Args:
        counts: whether it is what was counted.
        end: the number of the link end; `inbound` whether the packet has arrived there.
        length: the packet's own.
    """

    utc_ns: int
    counts: bool
    end: int
    inbound: bool
    length: int
    block: bytes


def read_head(file: BinaryIO) -> bytes:
    """What `head` made, from the beginning of a file."""
    found = b""
    while (block := _read_block(file)) and _kind(block) not in (PACKET, STATISTICS):
        found += block
    file.seek(len(found))
    return found


def read_marks(file: BinaryIO) -> Iterator[Mark]:
    """What comes after the head, up to the last block that is whole: who wrote it may have been killed."""
    while block := _read_block(file):
        end, high, low, _, length = struct.unpack_from("<IIIII", block, 8)
        (flags,) = struct.unpack_from("<I", block, len(block) - 12)  # of a packet: the last of its options
        yield Mark(high << 32 | low, _kind(block) == STATISTICS, end, flags != OUTBOUND, length, block)


def _read_block(file: BinaryIO) -> bytes:
    """The next block; empty if there is none that is whole."""
    begun = file.read(8)
    if len(begun) < 8:
        return b""
    length = struct.unpack_from("<I", begun, 4)[0]
    rest = file.read(max(length - 8, 0))
    return begun + rest if len(rest) == length - 8 else b""


def _kind(block: bytes) -> int:
    kind: int = struct.unpack_from("<I", block)[0]
    return kind


def _interface(end: End) -> bytes:
    options = [(IF_NAME, end.name.encode()), (IF_DESCRIPTION, end.description.encode()), (IF_MAC, end.mac)]
    options += [(IF_SPEED, struct.pack("<Q", end.speed_bit_s)), (IF_TSRESOL, bytes([NANOSECONDS]))]
    options += [(IF_FILTER, FILTER_AS_TEXT + end.filter.encode())] if end.filter else []
    return _block(INTERFACE, struct.pack("<HHI", ETHERNET, 0, end.snap_byte) + _options(options))


def _names(names: Mapping[str, Sequence[str]]) -> bytes:
    records = []
    for name, addresses in names.items():
        for address in addresses:
            kind, family = (NAME_IPV6, socket.AF_INET6) if ":" in address else (NAME_IPV4, socket.AF_INET)
            value = socket.inet_pton(family, address) + name.encode() + b"\0"
            records.append(struct.pack("<HH", kind, len(value)) + _padded(value))
    return _block(NAMES, b"".join(records) + struct.pack("<HH", 0, 0))


def _options(options: Iterable[tuple[int, bytes]]) -> bytes:
    found = b"".join(struct.pack("<HH", kind, len(value)) + _padded(value) for kind, value in options)
    return found + struct.pack("<HH", 0, 0)


def _block(kind: int, body: bytes) -> bytes:
    length = struct.pack("<I", len(body) + 12)
    return struct.pack("<I", kind) + length + body + length


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _time(utc_ns: int) -> bytes:
    return struct.pack("<II", utc_ns >> 32, utc_ns & 0xFFFFFFFF)
