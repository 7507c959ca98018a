"""Filters of sockets: small programs by which a kernel keeps from a socket what it need not see (socket(7))."""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Sequence

# Source: linux/bpf_common.h; load 32 bits, 16 bits, 8 bits, compare with a constant, return one
BPF_LD_W_ABS, BPF_LD_H_ABS, BPF_LD_B_ABS, BPF_JEQ, BPF_JGT, BPF_RET = 0x20, 0x28, 0x30, 0x15, 0x25, 0x06
SO_ATTACH_FILTER = 26  # asm-generic/socket.h
INSTRUCTION = struct.Struct("=HBBI")  # linux/filter.h sock_filter: code, jump if true, jump if false, operand

Instruction = tuple[int, int, int, int]


def attach_filter(one: socket.socket, program: Sequence[Instruction]) -> None:
    """Let a socket receive only what a program accepts, and of that as many bytes as it returns.

    Raises:
        OSError: the kernel finds the program wrong.
    """
    code = b"".join(INSTRUCTION.pack(*instruction) for instruction in program)
    kept = ctypes.create_string_buffer(code, len(code))
    one.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HL", len(program), ctypes.addressof(kept)))
