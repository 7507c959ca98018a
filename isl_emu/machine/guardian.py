"""The process between isl-emu and the guest kernel: whatever happens to isl-emu, no part of the guest outlives it.

Run in the guest's control folder, where guardian.json says what to start; see `Order`. It starts the command pinned to
one CPU, behind the wall of `sandbox`, and ends when the command ends, or kills it when the lifeline closes, which a
``kill -9`` of isl-emu does too. If it is killed itself, all behind the wall end. User-mode Linux consists of many
processes, some of them stopped under ptrace and some in sessions of their own; what they have in common is their
current folder, so that is how they are found.

It imports no more of isl-emu than the wall: a bare ``python -I -S`` starts it in a few milliseconds.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import select
import signal
import sys
import time
from pathlib import Path
from typing import NamedTuple

from isl_emu.machine import sandbox

PR_SET_PDEATHSIG = 1  # Source: linux/prctl.h
PR_SET_CHILD_SUBREAPER = 36  # Source: linux/prctl.h
GUEST_PRIORITY = 10
GONE_WITHIN_S = 10.0


ORDER, REFUSED = "guardian.json", "refused"  # in the control folder; the latter says why there is no wall


class Order(NamedTuple):
    """What to start.

    Args:
        cpu: where it runs.
        command: the program's path and its arguments.
        environment: all variables that it gets.
        kept: open descriptors that it gets besides the standard ones.
        view: what it sees of the machine; None for all of it, without a wall.
    """

    cpu: int
    command: list[str]
    environment: dict[str, str]
    kept: list[int]
    view: sandbox.View | None

    def write(self, folder: Path) -> None:
        """Leave it for `read_order`."""
        record = {**self._asdict(), "view": self.view and self.view._asdict()}
        (folder / ORDER).write_text(json.dumps(record))


def read_order() -> Order:
    """What `Order.write` left in the current folder."""
    record = json.loads(Path(ORDER).read_text())
    view = record.pop("view")
    return Order(**record, view=view and sandbox.View(**view))


def main(lifeline: int) -> int:
    """Run the command until it ends or the lifeline closes; return its exit status."""
    order, folder, own = read_order(), os.getcwd(), os.getpid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    child = os.fork()
    if child == 0:
        _become(order, own)
    ended = os.pidfd_open(child)
    poll = select.poll()
    poll.register(lifeline, 0)
    poll.register(ended, select.POLLIN)
    poll.poll()
    kill_processes_in(folder)
    statuses = {}
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.wait()
            statuses[pid] = os.waitstatus_to_exitcode(status)
    return statuses.get(child, 1)


def kill_processes_in(folder: str) -> list[int]:
    """Kill every process, except this one, whose current folder this is; return those that were there.

    All are stopped before any is killed: a guest process whose tracer dies first would run on as a process of the
    host.
    """
    killed: set[int] = set()
    deadline_s = time.monotonic() + GONE_WITHIN_S
    while found := processes_in(folder):
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in found:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, number)
        killed.update(found)
        if time.monotonic() > deadline_s:
            break
        time.sleep(0.01)
    return sorted(killed)


def processes_in(folder: str) -> list[int]:
    """Every process, except this one, whose current folder this is."""
    inside = (folder, f"{folder} (deleted)")
    return [pid for pid in _numbers() if _current_folder(pid) in inside]


def current_folders() -> set[str]:
    """The current folders of all processes that may be asked."""
    return {folder for pid in _numbers() if (folder := _current_folder(pid)) is not None}


def _numbers() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _current_folder(pid: int) -> str | None:
    """None for this process, another user's, a zombie, or one that is gone."""
    try:
        return None if pid == os.getpid() else os.readlink(f"/proc/{pid}/cwd")
    except OSError:
        return None


def _become(order: Order, parent: int) -> None:
    """Turn into the command, pinned, first in line on its CPU if allowed, and bound to die with its parent."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # gone before it could take us with it
        os._exit(1)
    os.sched_setaffinity(0, {order.cpu})
    os.umask(0)  # what programs in the guest create has the mode that they want, as their own umask leaves it
    # Each file that the guest opens is an open file of the host.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    # An open folder of the machine's would be a way around any wall.
    below = 2
    for descriptor in [*sorted(order.kept), most]:
        os.closerange(below + 1, descriptor)
        below = descriptor
    for descriptor in order.kept:
        os.set_inheritable(descriptor, True)
    go_first(0)
    if order.view is not None:
        refused = os.open(REFUSED, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            lent = sandbox.enter(order.view)
            go_first(os.SCHED_RESET_ON_FORK)  # while it is root, if it is
            sandbox.drop_rights(lent)
        except OSError as error:
            os.write(refused, str(error).encode())
            os._exit(126)
    go_first(os.SCHED_RESET_ON_FORK)
    try:
        os.execve(order.command[0], order.command, order.environment)
    except OSError as error:
        print(f"cannot start {order.command[0]}: {error}", flush=True)
        os._exit(127)


def go_first(flag: int) -> None:
    """Reset on fork once the command begins: otherwise a busy loop in the guest would starve the guest's kernel."""
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO | flag, os.sched_param(GUEST_PRIORITY))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])) & 0xFF)
