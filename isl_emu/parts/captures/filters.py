"""Filters as tcpdump words them, made into programs of the kernel's by libpcap; names of nodes are their addresses.

libpcap is loaded here, and not by Scapy, whose way to find it starts a program that a guest may not have.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Mapping, Sequence
from functools import cache

from isl_emu.errors import MachineError, ScenarioError
from isl_emu.nodes.filters import BPF_JEQ, BPF_LD_H_ABS, BPF_LD_W_ABS, BPF_RET, INSTRUCTION, Instruction
from isl_emu.scenario.captures import filter_problems

LIBRARIES = ("libpcap.so.0.8", "libpcap.so.1", "libpcap.dylib")  # as Debian and its like call it, and others
ETHERNET = 1  # DLT_EN10MB, pcap/dlt.h
OPTIMISED, ANY_MASK = 1, 0xFFFFFFFF


class _Program(ctypes.Structure):
    """struct bpf_program, pcap/bpf.h."""

    _fields_ = [("length", ctypes.c_uint), ("instructions", ctypes.c_void_p)]


def compile_filter(where: str, text: str, addresses: Mapping[str, str], snap_byte: int) -> list[Instruction]:
    """The program of a filter; an empty one accepts all.

    Args:
        where: the filter's place, for errors.
        addresses: of nodes, by their names.
        snap_byte: how much of a packet is kept.

    Raises:
        ScenarioError: libpcap does not understand it, or it has words that are not for it.
        MachineError: there is no libpcap.
    """
    if not text.strip():
        return [(BPF_RET, 0, 0, snap_byte)]
    if problems := list(filter_problems(where, text, addresses)):
        raise ScenarioError(*problems)
    asked = re.sub(r"[\w.:/-]+", lambda word: addresses.get(word[0], word[0]), text)
    library = _libpcap()
    handle = library.pcap_open_dead(ETHERNET, snap_byte)
    program = _Program()
    try:
        if library.pcap_compile(handle, ctypes.byref(program), asked.encode(), OPTIMISED, ANY_MASK):
            reason = library.pcap_geterr(handle).decode()
            raise ScenarioError(f"{where}: is {text!r}, but libpcap says: {reason}; see docs/captures.md")
        code = ctypes.string_at(program.instructions, program.length * INSTRUCTION.size)
        library.pcap_freecode(ctypes.byref(program))
    finally:
        library.pcap_close(handle)
    found = INSTRUCTION.iter_unpack(code)
    return [(op, yes, no, snap_byte if op == BPF_RET and value else value) for op, yes, no, value in found]


@cache
def _libpcap() -> ctypes.CDLL:
    for name in LIBRARIES:
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        library.pcap_open_dead.restype = ctypes.c_void_p
        library.pcap_geterr.restype = ctypes.c_char_p
        library.pcap_geterr.argtypes = library.pcap_close.argtypes = [ctypes.c_void_p]
        library.pcap_compile.argtypes = [
            *(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint32)
        ]
        return library
    raise MachineError(
        "capture: libpcap is not on this machine, but a filter is compiled by it; apt-get install libpcap0.8, or leave "
        "the filter out"
    )


def for_sent_from(mac: bytes, program: Sequence[Instruction]) -> list[Instruction]:
    """The same for frames alone that come from a hardware address."""
    high, low = int.from_bytes(mac[:2], "big"), int.from_bytes(mac[2:], "big")
    return [
        (BPF_LD_H_ABS, 0, 0, 6),
        (BPF_JEQ, 0, 2, high),
        (BPF_LD_W_ABS, 0, 0, 8),
        (BPF_JEQ, 1, 0, low),
        (BPF_RET, 0, 0, 0),
        *program,
    ]
