"""The machine's side of a way out: a process that translates addresses, by libslirp, and has no rights of root.

What leaves the gateway comes here as Ethernet frames, and becomes connections and datagrams of this process. So nothing
of the machine's network is changed, nobody need be root, and what was opened ends with the process. Frames come from
strangers: they reach whatever a program on this machine reaches, but not its own loopback.

Source: libslirp.h of libslirp 4.7, whose configuration of version 3 later ones take as well.
"""

from __future__ import annotations

import argparse
import ctypes
import ctypes.util
import errno
import ipaddress
import os
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from isl_emu.errors import MachineError
from isl_emu.machine.sandbox import NOBODY, PR_SET_NO_NEW_PRIVS, PR_SET_PDEATHSIG, libc
from isl_emu.runs.endpoints import (
    OUTSIDE,
    OUTSIDE6,
    OUTSIDE6_MACHINE,
    OUTSIDE6_NAMES,
    OUTSIDE_MACHINE,
    OUTSIDE_NAMES,
)
from isl_emu.units import NS_PER_MS

FRAME_BYTE = 65_549  # the longest, with its header
MTU = 1_500
IPV4, IPV6, ARP = b"\x08\x00", b"\x86\xdd", b"\x08\x06"  # EtherTypes, IEEE 802
ICMPV6, SOLICITATION, ADVERTISEMENT = 58, 135, 136  # who has an address, and who says so (RFC 4861)
REFUSED = [  # what this machine takes for itself, and who is not one
    ipaddress.IPv4Network(network) for network in ("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/4", "240.0.0.0/4")
]
REFUSED6 = [  # the same, IPv4 in IPv6, by which its loopback could be meant, and the translator's own addresses
    ipaddress.IPv6Network(network) for network in ("::/8", "fe80::/10", "ff00::/8", "fd00:0:0:c000::/64")
]
POLL_TO_SLIRP = {select.POLLIN: 1, select.POLLOUT: 2, select.POLLPRI: 4, select.POLLERR: 8, select.POLLHUP: 16}

_Send = ctypes.CFUNCTYPE(ctypes.c_ssize_t, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
_Says = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_void_p)
_Clock = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p)
_Called = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_NewTimer = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
_FreeTimer = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)
_SetTimer = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p)
_OfFile = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_void_p)
_AddPoll = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_void_p)
_GetEvents = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_void_p)
_Address6 = ctypes.c_uint32 * 4  # as struct in6_addr is aligned


class _Config(ctypes.Structure):
    _fields_ = [
        ("version", ctypes.c_uint32), ("restricted", ctypes.c_int), ("in_enabled", ctypes.c_bool),
        ("vnetwork", ctypes.c_uint32), ("vnetmask", ctypes.c_uint32), ("vhost", ctypes.c_uint32),
        ("in6_enabled", ctypes.c_bool), ("vprefix_addr6", _Address6), ("vprefix_len", ctypes.c_uint8),
        ("vhost6", _Address6), ("vhostname", ctypes.c_char_p), ("tftp_server_name", ctypes.c_char_p),
        ("tftp_path", ctypes.c_char_p), ("bootfile", ctypes.c_char_p), ("vdhcp_start", ctypes.c_uint32),
        ("vnameserver", ctypes.c_uint32), ("vnameserver6", _Address6), ("vdnssearch", ctypes.c_void_p),
        ("vdomainname", ctypes.c_char_p), ("if_mtu", ctypes.c_size_t), ("if_mru", ctypes.c_size_t),
        ("disable_host_loopback", ctypes.c_bool), ("enable_emu", ctypes.c_bool),
        ("outbound_addr", ctypes.c_void_p), ("outbound_addr6", ctypes.c_void_p),
        ("disable_dns", ctypes.c_bool),
    ]  # fmt: skip


class _Calls(ctypes.Structure):
    _fields_ = [
        ("send_packet", _Send), ("guest_error", _Says), ("clock_get_ns", _Clock), ("timer_new", _NewTimer),
        ("timer_free", _FreeTimer), ("timer_mod", _SetTimer), ("register_poll_fd", _OfFile),
        ("unregister_poll_fd", _OfFile), ("notify", _Called),
    ]  # fmt: skip


def library() -> ctypes.CDLL:
    """libslirp.

    Raises:
        MachineError: it is not installed.
    """
    try:
        return ctypes.CDLL("libslirp.so.0")
    except OSError:
        raise MachineError(
            "way_out: libslirp is not on this machine, but it translates the addresses; install it with: apt-get "
            "install libslirp0"
        ) from None


def may_leave(frame: bytes) -> bool:
    """Whether a frame is taken from a stranger: ARP and its like by IPv6, or IP to none of this machine's loopbacks."""
    if frame[12:14] == ARP:
        return True
    if frame[12:14] == IPV6 and len(frame) >= 55:
        destination6 = ipaddress.IPv6Address(frame[38:54])
        asks = frame[20] == ICMPV6 and frame[54] in (SOLICITATION, ADVERTISEMENT)
        return asks or not any(destination6 in network for network in REFUSED6)
    if frame[12:14] != IPV4 or len(frame) < 34:
        return False
    destination = ipaddress.IPv4Address(frame[30:34])
    return not any(destination in network for network in REFUSED)


def neighbour_answer(frame: bytes, gateway: bytes) -> bytes | None:
    """The answer for a node whose address a frame asks for: it is at the gateway; None to any other frame.

    libslirp learns an address from the source of an advertisement, so no kernel that answers for others (proxy NDP) can
    tell it: the answer is made here, in the node's name.
    """
    if len(frame) < 78 or (frame[12:14], frame[20], frame[54]) != (IPV6, ICMPV6, SOLICITATION):
        return None
    source, target = frame[22:38], frame[62:78]
    address = ipaddress.IPv6Address(target)
    if address.is_link_local or address in ipaddress.IPv6Interface(OUTSIDE6).network:
        return None
    told = bytes([ADVERTISEMENT, 0, 0, 0, 0x60, 0, 0, 0]) + target + b"\x02\x01" + gateway  # solicited, override
    total = sum(struct.unpack("!36H", target + source + struct.pack("!II", len(told), ICMPV6) + told))
    total = (total & 0xFFFF) + (total >> 16)
    checksum = ~(total + (total >> 16)) & 0xFFFF
    head = struct.pack("!IHBB", 6 << 28, len(told), ICMPV6, 255) + target + source
    return frame[6:12] + gateway + IPV6 + head + told[:2] + struct.pack("!H", checksum) + told[4:]


class Translator:
    """Translates addresses between frames of the gateway and sockets of this process.

    Args:
        file: a descriptor from which a frame is read at a time, and to which one is written.
    """

    def __init__(self, file: int):
        self._file, self._libslirp = file, library()
        self._gateway, self._answers = bytes(6), list[bytes]()  # its hardware address, and what libslirp is to hear
        self._due = dict[int, tuple[Callable[[int], Any], int, int]]()  # function, argument, ms or -1
        self._calls = _Calls(
            _Send(self._send),
            _Says(lambda text, _: print(text.decode(errors="replace"), file=sys.stderr, flush=True)),
            _Clock(lambda _: time.monotonic_ns()),
            _NewTimer(self._new_timer),
            _FreeTimer(lambda timer, _: self._due.pop(timer, None) and None),
            _SetTimer(self._set_timer),
            _OfFile(lambda file, _: None),
            _OfFile(lambda file, _: None),
            _Called(lambda _: None),
        )
        network, network6 = ipaddress.IPv4Interface(OUTSIDE).network, ipaddress.IPv6Interface(OUTSIDE6).network
        config = _Config(
            version=3,
            in_enabled=True,
            vnetwork=_in_addr(str(network.network_address)),
            vnetmask=_in_addr(str(network.netmask)),
            vhost=_in_addr(OUTSIDE_MACHINE),
            vdhcp_start=_in_addr(str(network.broadcast_address - 1)),
            vnameserver=_in_addr(OUTSIDE_NAMES),
            in6_enabled=True,
            vprefix_addr6=_in6_addr(str(network6.network_address)),
            vprefix_len=network6.prefixlen,
            vhost6=_in6_addr(OUTSIDE6_MACHINE),
            vnameserver6=_in6_addr(OUTSIDE6_NAMES),
            if_mtu=MTU,
            if_mru=MTU,
            disable_host_loopback=True,
        )
        made = self._libslirp.slirp_new
        made.restype, made.argtypes = ctypes.c_void_p, [ctypes.c_void_p] * 3
        self._slirp = ctypes.c_void_p(made(ctypes.byref(config), ctypes.byref(self._calls), None))
        if not self._slirp:
            raise MachineError("way_out: libslirp does not start, but it translates the addresses; update libslirp0")

    def serve(self) -> None:
        """Translate until the other end of the file is closed."""
        while self._serve_once():
            self._call_due()
            while self._answers:
                answer = self._answers.pop()
                self._libslirp.slirp_input(self._slirp, answer, len(answer))

    def _serve_once(self) -> bool:
        """Wait until something happens, and deal with it; whether the file is still open."""
        files, wanted, events = list[int](), {self._file: select.POLLIN}, dict[int, int]()

        def add(file: int, asked: int, _: Any) -> int:
            events_asked = sum(ours for ours, theirs in POLL_TO_SLIRP.items() if asked & theirs)
            wanted[file] = wanted.get(file, 0) | events_asked
            files.append(file)
            return len(files) - 1

        def happened(number: int, _: Any) -> int:
            found = events.get(files[number], 0)
            return sum(theirs for ours, theirs in POLL_TO_SLIRP.items() if found & ours)

        timeout_ms, fill, get, poll = ctypes.c_uint32(1_000), _AddPoll(add), _GetEvents(happened), select.poll()
        self._libslirp.slirp_pollfds_fill(self._slirp, ctypes.byref(timeout_ms), fill, None)
        for file, asked in wanted.items():
            poll.register(file, asked)
        events |= poll.poll(min(timeout_ms.value, self._next_due_ms()))
        self._libslirp.slirp_pollfds_poll(self._slirp, 0, get, None)
        return self._file not in events or self._take()

    def _take(self) -> bool:
        """Take a frame from the gateway; whether there may be more."""
        try:
            frame = os.read(self._file, FRAME_BYTE)
        except BlockingIOError:
            return True
        except OSError as error:  # the interface at the other end is gone
            if error.errno not in (errno.EBADFD, errno.EIO, errno.ECONNRESET):
                raise
            return False
        if frame and may_leave(frame):
            self._gateway = frame[6:12]
            self._libslirp.slirp_input(self._slirp, frame, len(frame))
        return bool(frame)

    def _send(self, frame: int, length: int, _: Any) -> int:
        """A full buffer loses the frame, as a network does."""
        data = ctypes.string_at(frame, length)
        if answer := neighbour_answer(data, self._gateway):
            self._answers.append(answer)  # libslirp is at work, and hears of it afterwards
            return length
        with suppress(BlockingIOError):
            os.write(self._file, data)
        return length

    def _new_timer(self, function: int, argument: int, _: Any) -> int:
        number = max(self._due, default=0) + 1
        self._due[number] = (_Called(function), argument, -1)
        return number

    def _set_timer(self, timer: int, due_ms: int, _: Any) -> None:
        function, argument, _due = self._due[timer]
        self._due[timer] = function, argument, due_ms

    def _next_due_ms(self) -> int:
        now_ms = time.monotonic_ns() // NS_PER_MS
        return min((max(due - now_ms, 0) for _, _, due in self._due.values() if due >= 0), default=1_000)

    def _call_due(self) -> None:
        now_ms = time.monotonic_ns() // NS_PER_MS
        for number, (function, argument, due) in list(self._due.items()):
            if 0 <= due <= now_ms:
                self._due[number] = function, argument, -1
                function(argument)


def without_ipv6() -> str | None:
    """Why nothing leaves by IPv6 where this process is; None if it does."""
    with suppress(OSError), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as asking:
        asking.connect(("2001:db8::1", 9))  # which sends nothing
        return None
    return (
        "way_out: this machine has no route by IPv6, but packets leave as its own do; those by IPv4 leave, those by "
        "IPv6 come back as unreachable"
    )


def _in6_addr(address: str) -> Any:
    return _Address6.from_buffer_copy(ipaddress.IPv6Address(address).packed)


def _in_addr(address: str) -> int:
    return int.from_bytes(ipaddress.IPv4Address(address).packed, sys.byteorder)


def give_up_rights(parent: int) -> None:
    """Become nobody, if this is root, who ends with its parent."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)  # which a change of the user forgets
    if os.getppid() != parent:
        raise SystemExit(1)


def main() -> None:
    """``python -m isl_emu.parts.way_out.nat --file DESCRIPTOR --parent PID``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--file", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    options = parser.parse_args()
    os.set_blocking(options.file, False)
    translator = Translator(options.file)
    give_up_rights(options.parent)
    print("ready", flush=True)
    translator.serve()


if __name__ == "__main__":
    main()
