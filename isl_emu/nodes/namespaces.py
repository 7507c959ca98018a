"""Linux namespaces by system call: Python learned `setns` and `unshare` only in 3.12.

A namespace belongs to a thread, not to a process: a thread that enters one leaves all other threads where they are,
and what it starts is born there. `in_own_thread` runs a function in a thread that ends afterwards, so nothing leaks.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

# Source: include/uapi/linux/sched.h
CLONE_FS = 0x00000200
CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

Result = TypeVar("Result")
libc = ctypes.CDLL(None, use_errno=True)


def checked(status: int, doing: str) -> int:
    """The status of a libc call, or an OSError that says what was being done."""
    if status < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{doing}: {os.strerror(code)}")
    return status


def unshare(flags: int) -> None:
    """Give the calling thread namespaces of its own."""
    checked(libc.unshare(flags), "unshare")


def set_namespace(descriptor: int, flags: int) -> None:
    """Move the calling thread into the namespaces that a namespace file or a pidfd stands for."""
    checked(libc.setns(descriptor, flags), "setns")


def enter_network(netns_path: str) -> None:
    """Move the calling thread into the network namespace at `netns_path`."""
    descriptor = os.open(netns_path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        set_namespace(descriptor, CLONE_NEWNET)
    finally:
        os.close(descriptor)


def set_host_name(name: str) -> None:
    """Name the host, in the UTS namespace of the calling thread."""
    checked(libc.sethostname(name.encode(), len(name.encode())), "sethostname")


def in_own_thread(function: Callable[..., Result], *args: object, **kwargs: object) -> Result:
    """Call `function` in a new thread and wait for it: namespaces that it enters end with the thread."""
    with ThreadPoolExecutor(max_workers=1) as executor:
        return executor.submit(function, *args, **kwargs).result()
