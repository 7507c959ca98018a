"""Packet sockets at link ends, and the time of each packet on the run's clock.

The kernel stamps a packet when it arrives, or when it is handed to the link (see `network.taps`), in UTC of one kernel,
which all nodes share. What this process does, and when, is in no stamp.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from isl_emu.nodes.filters import Instruction, attach_filter
from isl_emu.nodes.namespaces import enter_network, in_own_thread
from isl_emu.scenario.captures import WHOLE_BYTE
from isl_emu.timebase import Clock
from isl_emu.units import NS_PER_S, NS_PER_US

# Source: include/uapi/asm-generic/socket.h, linux/if_packet.h, linux/if_ether.h
_SO_RCVBUFFORCE, _SO_TIMESTAMPNS = 33, 35
_SOL_PACKET, _PACKET_STATISTICS, _PACKET_AUXDATA, _PACKET_IGNORE_OUTGOING = 263, 6, 8, 23
_ETH_P_ALL = 3
_TIMESPEC, _AUXDATA, _STATISTICS = struct.Struct("@qq"), struct.Struct("=III8x"), struct.Struct("=II")
BUFFER_BYTE = 32 * 1024 * 1024  # of a socket: 10,000 packets and more, until this process gets its CPU
_ANCILLARY_BYTE = 256
MOST_AT_ONCE = 512  # packets of a socket, before others have their turn
TIGHT_NS, READINGS = 2 * NS_PER_US, 5


class Heard(NamedTuple):
    """A packet: its stamp in the kernel's UTC, what is kept of it, and how long it is."""

    utc_ns: int
    data: bytes
    length: int


class Ear:
    """A socket that hears what arrives at an interface, or what a tap has copied.

    Args:
        netns_path: the node's namespace.
        interface: in it.
        program: what it is to hear.
    """

    def __init__(self, netns_path: str, interface: str, program: Sequence[Instruction], *, arriving: bool):
        self._socket = in_own_thread(_opened, netns_path, interface, program, arriving)
        self._room = bytearray(WHOLE_BYTE)

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._socket.fileno()

    def hear(self) -> Iterator[Heard]:
        """What has come, at most `MOST_AT_ONCE` packets."""
        for _ in range(MOST_AT_ONCE):
            try:
                kept, ancillary, _, _ = self._socket.recvmsg_into([self._room], _ANCILLARY_BYTE)
            except BlockingIOError:
                return
            content = {(level, kind): data for level, kind, data in ancillary}
            second, ns = _TIMESPEC.unpack_from(content[socket.SOL_SOCKET, _SO_TIMESTAMPNS])
            _, length, _ = _AUXDATA.unpack_from(content[_SOL_PACKET, _PACKET_AUXDATA])
            yield Heard(second * NS_PER_S + ns, bytes(self._room[:kept]), length)

    def dropped(self) -> int:
        """How many packets found the socket full since the last call."""
        said = self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, _STATISTICS.size)
        drops: int = _STATISTICS.unpack(said)[1]
        return drops

    def close(self) -> None:
        """Hear no more."""
        self._socket.close()


def _opened(netns_path: str, interface: str, program: Sequence[Instruction], arriving: bool) -> socket.socket:
    enter_network(netns_path)
    ear = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)  # hears nothing until it is bound
    attach_filter(ear, program)
    ear.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, BUFFER_BYTE)
    ear.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    ear.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
    if arriving:
        ear.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
    ear.bind((interface, _ETH_P_ALL))
    return ear


class Stamps:
    """Turns stamps in the kernel's UTC into times since instant 0, by a reading of both clocks at nearly once."""

    def __init__(self, clock: Clock, t0_ns: int):
        self._clock, self._t0_ns = clock, t0_ns
        self.read()

    def read(self) -> None:
        """Read the clocks anew: a run's clock may have stood since."""
        found = []
        for _ in range(READINGS):
            before, utc_ns, after = self._clock.now_ns(), time.time_ns(), self._clock.now_ns()
            found.append((after - before, (before + after) // 2, utc_ns))
            if after - before <= TIGHT_NS:
                break
        _, self._now_ns, self._utc_ns = min(found)

    def t_ns(self, utc_ns: int) -> int:
        """The time of a stamp, since instant 0."""
        return self._now_ns - self._t0_ns - self._clock.own_ns(self._utc_ns - utc_ns)
