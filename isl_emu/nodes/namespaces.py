"""Linux namespaces and rights by system call: Python learned `setns` and `unshare` only in 3.12.

Both belong to a thread, not to a process: a thread that enters a namespace, or gives up rights, leaves all other
threads as they are, and what it starts is born so. `in_own_thread` runs a function in a thread that ends afterwards, so
nothing leaks.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

# Source: include/uapi/linux/sched.h
CLONE_FS = 0x00000200
CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
NEW_NAMESPACES = 0x7E020000  # all of them
# Source: linux/prctl.h, linux/seccomp.h, linux/capability.h
PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, SECCOMP_MODE_FILTER = 4, 22, 24, 38, 2
CAPABILITY_VERSION = 0x20080522
CAP_NET_ADMIN, CAP_SYS_ADMIN = 12, 21
# What a stranger's program keeps: with files and processes of its container it may do as root may, with the network it
# may send raw packets and listen at low ports, and with the machine and the links nothing. Changing its root folder
# (CAP_SYS_CHROOT) would lead out of the container where the machine is in a changed one itself, as a guest is.
KEPT_CAPABILITIES = {
    "chown": 0, "dac_override": 1, "fowner": 3, "fsetid": 4, "kill": 5, "setgid": 6, "setuid": 7, "setpcap": 8,
    "net_bind_service": 10, "net_raw": 13,
}  # fmt: skip
# System calls by which one without rights gets some, or sees the machine. Source: the kernel's tables, linux/audit.h
REFUSED_CALLS = {
    "x86_64": {
        "syslog": 103, "add_key": 248, "request_key": 249, "keyctl": 250, "perf_event_open": 298, "bpf": 321,
        "userfaultfd": 323, "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427,
    },
    "aarch64": {
        "syslog": 116, "add_key": 217, "request_key": 218, "keyctl": 219, "perf_event_open": 241, "bpf": 280,
        "userfaultfd": 282, "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427,
    },
}  # fmt: skip
PARTLY_REFUSED = {  # clone, unshare, socket, and how the kernel's filter names the machine
    "x86_64": (56, 272, 41, 0xC000003E),
    "aarch64": (220, 97, 198, 0xC00000B7),
}
CLONE3, AF_VSOCK, OTHER_NUMBERS = 435, 40, 0x40000000  # x32 counts from there on x86_64

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


class NetworkThreads:
    """Calls functions in threads that are born in a network, also when this process may not enter it any more.

    Args:
        netns_path: the network's namespace.
    """

    def __init__(self, netns_path: str):
        self._first = ThreadPoolExecutor(1, initializer=enter_network, initargs=(netns_path,))
        self._first.submit(give_up_rights).result()

    def __call__(self, function: Callable[..., Result], *args: object) -> Result:
        """Call `function` in a thread of its own, and wait for it."""
        with ThreadPoolExecutor(max_workers=1) as executor:  # whose thread begins where the one is that asks for it
            return self._first.submit(executor.submit, function, *args).result().result()


def give_up_rights(but: Collection[int] = ()) -> None:
    """Leave the calling thread, and all that it starts, no rights over the machine and its network, and no way to any.

    Args:
        but: capabilities that it keeps until it calls this again.

    Raises:
        OSError: this kernel lacks something that it takes.
    """
    kept = {*KEPT_CAPABILITIES.values(), *but}
    for capability in set(range(64)) - kept:
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    low = sum(1 << capability for capability in kept)
    header, sets = struct.pack("Ii", CAPABILITY_VERSION, 0), struct.pack("6I", low, low, 0, 0, 0, 0)
    checked(libc.capset(header, sets), "giving up capabilities")
    # Who has the same rights in the container could otherwise reach into this process's memory, by a child of it that
    # has not yet become another program.
    checked(libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0), "closing the memory to others")
    checked(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "giving up new privileges")
    program = _strangers_filter(os.uname().machine)
    instructions = ctypes.create_string_buffer(program, len(program))
    record = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(instructions))  # struct sock_fprog
    checked(libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, record, 0, 0), "limiting the system calls")


def _strangers_filter(machine: str) -> bytes:
    """No new namespaces, in which a program would be root again, and none of `REFUSED_CALLS`; see seccomp(2)."""
    load, equal, at_least, any_bit, give = 0x20, 0x15, 0x35, 0x45, 0x06
    number, architecture, first = 0, 4, 16  # offsets in struct seccomp_data
    allow, refuse = 0x7FFF0000, 0x00050000
    clone, unshare_, socket, own = PARTLY_REFUSED[machine]
    code = [(load, 0, 0, architecture), (equal, 1, 0, own), (give, 0, 0, refuse | errno.ENOSYS), (load, 0, 0, number)]
    code += [(at_least, 0, 1, OTHER_NUMBERS), (give, 0, 0, refuse | errno.ENOSYS)]
    for call in REFUSED_CALLS[machine].values():
        code += [(equal, 0, 1, call), (give, 0, 0, refuse | errno.EPERM)]
    # Its flags lie in memory, where a filter cannot see them; libc then uses clone.
    code += [(equal, 0, 1, CLONE3), (give, 0, 0, refuse | errno.ENOSYS)]
    for call, test, value, error in (
        (clone, any_bit, NEW_NAMESPACES, errno.EPERM),
        (unshare_, any_bit, NEW_NAMESPACES, errno.EPERM),
        (socket, equal, AF_VSOCK, errno.EAFNOSUPPORT),  # which leads past all networks to other virtual machines
    ):
        code += [(equal, 0, 4, call), (load, 0, 0, first), (test, 0, 1, value), (give, 0, 0, refuse | error)]
        code += [(give, 0, 0, allow)]
    code += [(give, 0, 0, allow)]
    return b"".join(struct.pack("HBBI", *instruction) for instruction in code)
