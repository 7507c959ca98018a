"""A wall around the guest kernel's own process, and around functions of a scenario: on this machine they are nobody.

Root in the guest may mount the machine's file system through the guest's kernel, and that kernel may have faults. So
its process gets as little as it needs: a root folder of its own with a read-only view of named files, the run's folders
alone writable, no network, no other processes, no capabilities, and few system calls. Where root starts it, it runs as
a user whom the machine does not know, and to whom the files' owners lend them by id-mapped mounts. Where a user starts
it, or where a file system has no such mounts, it runs in a user namespace.

It imports nothing of isl-emu, because the guardian starts it before anything else is there.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import stat
import struct
from typing import Any, NamedTuple

NOBODY = 2_000_000_000  # no distribution gives this number to anybody; Source: systemd, UIDS-GIDS.md

# Source: linux/sched.h
CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x02000000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
NEW_NAMESPACES = 0x7E020000  # all of them
# Source: linux/mount.h, linux/fcntl.h
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 0x1, 0x2, 0x4, 0x20, 0x1000, 0x4000, 0x40000
MNT_DETACH, OPEN_TREE_CLONE, AT_FDCWD, AT_EMPTY_PATH, AT_RECURSIVE, MOVE_EMPTY_PATH = 2, 1, -100, 0x1000, 0x8000, 4
ATTR_RDONLY, ATTR_NOSUID, ATTR_NODEV, ATTR_IDMAP = 0x1, 0x2, 0x4, 0x100000
# Source: linux/prctl.h, linux/securebits.h
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 4, 22, 24, 38
SECCOMP_MODE_FILTER = 2
# Source: arch/x86/entry/syscalls/syscall_64.tbl; User-mode Linux runs on no other processor here.
SYS_PIVOT_ROOT, SYS_OPEN_TREE, SYS_MOVE_MOUNT, SYS_MOUNT_SETATTR = 155, 428, 429, 442
# fmt: off
ALLOWED = {
    "read": 0, "write": 1, "open": 2, "close": 3, "stat": 4, "fstat": 5, "lstat": 6, "poll": 7, "lseek": 8,
    "mmap": 9, "mprotect": 10, "munmap": 11, "brk": 12, "rt_sigaction": 13, "rt_sigprocmask": 14,
    "rt_sigreturn": 15, "ioctl": 16, "pread64": 17, "pwrite64": 18, "readv": 19, "writev": 20, "access": 21,
    "pipe": 22, "select": 23, "sched_yield": 24, "mremap": 25, "madvise": 28, "dup": 32, "dup2": 33,
    "nanosleep": 35, "getpid": 39, "connect": 42, "accept": 43, "sendto": 44, "recvfrom": 45, "sendmsg": 46,
    "recvmsg": 47, "bind": 49, "listen": 50, "getsockname": 51, "setsockopt": 54, "getsockopt": 55, "vfork": 58,
    "execve": 59, "exit": 60, "wait4": 61, "kill": 62, "uname": 63, "fcntl": 72, "fsync": 74, "fdatasync": 75,
    "truncate": 76, "ftruncate": 77, "getcwd": 79, "chdir": 80, "rename": 82, "mkdir": 83, "rmdir": 84, "link": 86,
    "unlink": 87, "symlink": 88, "readlink": 89, "chmod": 90, "fchmod": 91, "chown": 92, "fchown": 93,
    "lchown": 94, "umask": 95, "gettimeofday": 96, "getrlimit": 97, "ptrace": 101, "getuid": 102, "getgid": 104,
    "geteuid": 107, "getegid": 108, "setpgid": 109, "getppid": 110, "getpgrp": 111, "setsid": 112,
    "rt_sigpending": 127, "rt_sigsuspend": 130, "sigaltstack": 131, "mknod": 133, "statfs": 137, "fstatfs": 138,
    "modify_ldt": 154, "prctl": 157, "arch_prctl": 158, "sync": 162, "gettid": 186, "tkill": 200, "futex": 202,
    "sched_getaffinity": 204, "epoll_create": 213, "getdents64": 217, "set_tid_address": 218,
    "restart_syscall": 219, "timer_create": 222, "timer_settime": 223, "timer_gettime": 224, "timer_delete": 226,
    "clock_gettime": 228, "clock_nanosleep": 230, "exit_group": 231, "epoll_wait": 232, "epoll_ctl": 233,
    "tgkill": 234, "utimes": 235, "openat": 257, "mknodat": 259, "futimesat": 261, "newfstatat": 262,
    "unlinkat": 263, "faccessat": 269, "pselect6": 270, "ppoll": 271, "set_robust_list": 273, "utimensat": 280,
    "epoll_pwait": 281, "fallocate": 285, "eventfd2": 290, "epoll_create1": 291, "pipe2": 293, "prlimit64": 302,
    "syncfs": 306, "process_vm_readv": 310, "process_vm_writev": 311, "renameat2": 316, "getrandom": 318,
    "memfd_create": 319, "copy_file_range": 326, "statx": 332, "rseq": 334, "faccessat2": 439,
}
# fmt: on
# A function alone needs no other processes, but some calls of Python's and numpy's.
NOT_ALONE = {
    "vfork",
    "execve",
    "ptrace",
    "process_vm_readv",
    "process_vm_writev",
    "modify_ldt",
    "kill",
    "mknod",
    "mknodat",
}
ALONE = {
    "setitimer": 38, "getrusage": 98, "sysinfo": 99, "times": 100, "clock_getres": 229, "get_mempolicy": 239,
    "readlinkat": 267, "getcpu": 309, "membarrier": 324,
}  # fmt: skip
SYS_SOCKET, SYS_SOCKETPAIR, SYS_CLONE, SYS_PERSONALITY, SYS_CLONE3 = 41, 53, 56, 135, 435
CLONE_THREAD = 0x00010000
AF_UNIX, ASK_PERSONALITY, AUDIT_ARCH_X86_64, EPERM, ENOSYS = 1, 0xFFFFFFFF, 0xC000003E, 1, 38

libc = ctypes.CDLL(None, use_errno=True)


class View(NamedTuple):
    """What is to be seen; all paths absolute, without links but in `links`, and existing.

    Args:
        system: files and folders to read as they are.
        own: files and folders of the launcher's to read, lent to the guest whoever else may read them.
        writable: folders whose contents may change.
        links: symbolic links to make, where no bound folder has them: path and target.
        empty: folders that must exist, whatever is in them.
        memory_byte: room in /dev/shm, where the guest's memory lies.
    """

    system: list[str]
    own: list[str]
    writable: list[str]
    links: list[tuple[str, str]]
    empty: list[str]
    memory_byte: int


def enter(view: View, waiting_keep_files: bool = True) -> bool:
    """Go behind the wall; returns in a grandchild of the caller, which has still to call `drop_rights`.

    The caller's own process waits for it and ends with its status. If one of the two is killed, all behind the wall
    end.

    Args:
        waiting_keep_files: the processes that wait keep the files that are open.

    Returns:
        Whether files are lent to nobody; otherwise it is in a user namespace.

    Raises:
        OSError: the machine does not allow it; which step failed is in its text.
    """
    here = os.getcwd()
    lent = _lent(view) if os.geteuid() == 0 else None
    if lent is None:
        uid, gid = os.getuid(), os.getgid()
        _checked(libc.unshare(CLONE_NEWUSER), "making a user namespace")
        _write_maps("self", f"0 {uid} 1", f"0 {gid} 1")
    _checked(
        libc.unshare(CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET),
        "making namespaces",
    )
    _mount("none", "/", None, MS_REC | MS_PRIVATE)
    trees = dict(lent or {})
    for path in view.system:
        trees[path] = tree_of(path, ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV)
    if lent is None:
        trees |= {path: tree_of(path, ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV) for path in view.own}
        trees |= {path: tree_of(path, ATTR_NOSUID | ATTR_NODEV) for path in view.writable}
    trees["/dev/null"] = tree_of("/dev/null", 0)
    _build_root(view, trees, here)
    _fork_inside(waiting_keep_files)
    return lent is not None


def _lent(view: View) -> dict[str, int] | None:
    """The launcher's files, as mounts on which their owner is nobody; None where a file system cannot do that."""
    trees: dict[str, int] = {}
    spaces: dict[tuple[int, int], int] = {}
    try:
        for path in [*view.own, *view.writable]:
            status = os.stat(path)
            owner = status.st_uid, status.st_gid
            if owner not in spaces:
                spaces[owner] = _user_namespace(*owner)
            writable = path in view.writable
            flags = ATTR_NOSUID | ATTR_NODEV | ATTR_IDMAP | (0 if writable else ATTR_RDONLY)
            trees[path] = tree_of(path, flags, spaces[owner])
    except OSError:
        for tree in trees.values():
            os.close(tree)
        return None
    finally:
        for space in spaces.values():
            os.close(space)
    return trees


def _user_namespace(uid: int, gid: int) -> int:
    """A user namespace in which these two are nobody, held by a descriptor."""
    ready, go_on = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.write(ready[1], b"x" if libc.unshare(CLONE_NEWUSER) == 0 else b"-")
        os.read(go_on[0], 1)
        os._exit(0)
    os.close(ready[1])  # so that its death is heard: a library may end each copy of a process that has threads
    try:
        if os.read(ready[0], 1) != b"x":
            raise PermissionError("a user namespace cannot be made")
        _write_maps(str(child), f"{uid} {NOBODY} 1", f"{gid} {NOBODY} 1")
        return os.open(f"/proc/{child}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.write(go_on[1], b"x")
        os.waitpid(child, 0)
        for end in (ready[0], *go_on):
            os.close(end)


def _write_maps(process: str, uid_map: str, gid_map: str) -> None:
    for name, text in (("setgroups", "deny"), ("uid_map", uid_map), ("gid_map", gid_map)):
        with open(f"/proc/{process}/{name}", "w") as file:
            file.write(text)


def tree_of(path: str, flags: int, user_namespace: int = 0) -> int:
    """A copy of a mount, and of all below it, with further restrictions; not yet anywhere, but held by a descriptor.

    Raises:
        OSError: the machine does not allow it.
    """
    flag = OPEN_TREE_CLONE | (AT_RECURSIVE if flags else 0)
    tree = _checked(libc.syscall(SYS_OPEN_TREE, AT_FDCWD, path.encode(), flag), f"showing {path}")
    if flags:
        attributes = struct.pack("QQQQ", flags, 0, 0, user_namespace)  # struct mount_attr
        status = libc.syscall(SYS_MOUNT_SETATTR, tree, b"", AT_EMPTY_PATH | AT_RECURSIVE, attributes, len(attributes))
        try:
            _checked(status, f"restricting {path}")
        except OSError:
            os.close(tree)
            raise
    return tree


def _build_root(view: View, trees: dict[str, int], here: str) -> None:
    """Make a root folder of what is to be seen; the old one is gone afterwards."""
    _mount("tmpfs", here, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")
    os.chdir(here)
    for name in ("proc", "sys", "dev/shm", "mnt", "run", "tmp", "var/tmp", "etc/network"):
        os.makedirs(name)
    _mount("tmpfs", "dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, f"mode=1777,size={view.memory_byte}")
    for path, tree in sorted(trees.items()):  # a folder comes before what is in it
        place = path.lstrip("/")
        if stat.S_ISDIR(os.fstat(tree).st_mode):
            os.makedirs(place, exist_ok=True)
        elif not os.path.lexists(place):
            os.makedirs(os.path.dirname(place), exist_ok=True)
            os.close(os.open(place, os.O_CREAT | os.O_CLOEXEC))
        moved = libc.syscall(SYS_MOVE_MOUNT, tree, b"", AT_FDCWD, place.encode(), MOVE_EMPTY_PATH)
        _checked(moved, f"showing {path}")
        os.close(tree)
    for path, target in view.links:
        if not os.path.lexists(path.lstrip("/")):
            os.makedirs(os.path.dirname(path.lstrip("/")) or ".", exist_ok=True)
            os.symlink(target, path.lstrip("/"))
    for path in view.empty:
        os.makedirs(path.lstrip("/") or ".", exist_ok=True)
    _checked(libc.syscall(SYS_PIVOT_ROOT, b".", b"."), "changing the root folder")
    _checked(libc.umount2(b".", MNT_DETACH), "leaving the old root folder")
    _mount("none", "/", None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)
    os.chdir(here)


def _fork_inside(waiting_keep_files: bool) -> None:
    """Two generations: the first process of the new PID namespace, with which all of it ends, and the one to be."""
    first = os.fork()
    if first:
        _wait_and_leave(first, waiting_keep_files)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    second = os.fork()
    if second:
        _wait_and_leave(second, waiting_keep_files)


def _wait_and_leave(child: int, keep_files: bool) -> None:
    """End as a child does; whoever else ends meanwhile is no more than taken note of."""
    if not keep_files:
        os.closerange(0, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    while True:
        pid, status = os.wait()
        if pid == child:
            os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def drop_rights(become_nobody: bool, alone: bool = False) -> None:
    """Give up what root may do, and all system calls that the guest's kernel does without.

    Args:
        alone: it is no guest's kernel but a function, which starts threads but no processes.

    Raises:
        OSError: the machine does not allow it.
    """
    for capability in range(64):
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    if become_nobody:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)  # the guest's kernel traces its own processes
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # a change of the user has forgotten it
    _checked(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "giving up new privileges")
    program = filter_program(alone)
    code = ctypes.create_string_buffer(program, len(program))
    filter_record = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(code))  # struct sock_fprog
    _checked(libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, filter_record, 0, 0), "limiting the system calls")


def filter_program(alone: bool = False) -> bytes:
    """The system calls that the guest's kernel may make, as a program of the kernel's packet filter (seccomp(2)).

    Sockets are local ones only, new processes get no namespaces of their own, and all else is refused with EPERM.

    Args:
        alone: those that a function may make, without new processes.
    """
    calls = {name: call for name, call in ALLOWED.items() if name not in NOT_ALONE} | ALONE if alone else ALLOWED
    load_number, load_arch, load_first, load_rest = 0, 4, 16, 20  # offsets in struct seccomp_data
    allow, refuse, absent, kill = 0x7FFF0000, 0x00050000 | EPERM, 0x00050000 | ENOSYS, 0x80000000
    code: list[tuple[int, int, int, int]] = []

    def load(offset: int) -> None:
        code.append((0x20, 0, 0, offset))  # A = data[offset]

    def unless_equal(value: int, skip: int) -> None:
        code.append((0x15, 0, skip, value))  # if A != value: skip some

    def give(action: int) -> None:
        code.append((0x06, 0, 0, action))

    load(load_arch)
    code.append((0x15, 1, 0, AUDIT_ARCH_X86_64))
    give(kill)
    load(load_number)
    for number in sorted(calls.values()):
        unless_equal(number, 1)
        give(allow)
    unless_equal(SYS_CLONE3, 1)  # its flags lie in memory, which a filter cannot read; libc then uses clone
    give(absent)
    for number, value in ((SYS_SOCKET, AF_UNIX), (SYS_SOCKETPAIR, AF_UNIX), (SYS_PERSONALITY, ASK_PERSONALITY)):
        unless_equal(number, 6)
        load(load_first)
        unless_equal(value, 3)
        load(load_rest)
        unless_equal(0, 1)
        give(allow)
        give(refuse)
    unless_equal(SYS_CLONE, 5 if alone else 4)
    load(load_first)
    code.append((0x45, 2 if alone else 1, 0, NEW_NAMESPACES))  # if A & value: skip some
    if alone:
        code.append((0x45, 0, 1, CLONE_THREAD))  # unless A & value: skip one
    give(allow)
    give(refuse)
    give(refuse)
    return b"".join(struct.pack("HBBI", *instruction) for instruction in code)


def _mount(source: str, target: str, kind: str | None, flags: int, options: str = "") -> None:
    status = libc.mount(source.encode(), target.encode(), kind and kind.encode(), flags, options.encode() or None)
    _checked(status, f"mounting {target}")


def _checked(status: Any, doing: str) -> int:
    if status < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{doing}: {os.strerror(code)}")
    return int(status)
