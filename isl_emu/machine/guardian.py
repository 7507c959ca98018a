"""The process between isl-emu and the guest kernel: whatever happens to isl-emu, no part of the guest outlives it.

Run as ``guardian.py CPU LIFELINE COMMAND...`` in the guest's control folder. It starts the command pinned to one CPU
and ends when the command ends, or kills it when the lifeline closes, which a ``kill -9`` of isl-emu does too.
User-mode Linux consists of many processes, some of them stopped under ptrace and some in sessions of their own; what
they have in common is their current folder, so that is how they are found.

It imports nothing of isl-emu: a bare ``python -I -S`` starts it in a few milliseconds.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import select
import signal
import sys
import time

PR_SET_PDEATHSIG = 1  # Source: linux/prctl.h
PR_SET_CHILD_SUBREAPER = 36  # Source: linux/prctl.h
GUEST_PRIORITY = 10
GONE_WITHIN_S = 10.0


def main(arguments: list[str]) -> int:
    """Run the command until it ends or the lifeline closes; return its exit status."""
    cpu, lifeline, command = int(arguments[0]), int(arguments[1]), arguments[2:]
    folder = os.getcwd()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    child = os.fork()
    if child == 0:
        _become(command, cpu)
    ended = os.pidfd_open(child)
    poll = select.poll()
    poll.register(lifeline, 0)
    poll.register(ended, select.POLLIN)
    poll.poll()
    kill_processes_in(folder)
    return _reap_all().get(child, 1)


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
    return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _current_folder(pid) in inside]


def _current_folder(pid: int) -> str | None:
    """None for this process, another user's, a zombie, or one that is gone."""
    try:
        return None if pid == os.getpid() else os.readlink(f"/proc/{pid}/cwd")
    except OSError:
        return None


def _become(command: list[str], cpu: int) -> None:
    """Turn into the command, pinned, first in line on its CPU if allowed, and bound to die with its parent."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    os.sched_setaffinity(0, {cpu})
    # Without reset-on-fork a busy loop in the guest would starve the guest's own kernel.
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(GUEST_PRIORITY))
    # Each file that the guest opens is an open file of the host.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    try:
        os.execvp(command[0], command)
    except OSError as error:
        print(f"cannot start {command[0]}: {error}", flush=True)
        os._exit(127)


def _reap_all() -> dict[int, int]:
    statuses = {}
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.wait()
            statuses[pid] = os.waitstatus_to_exitcode(status)
    return statuses


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]) & 0xFF)
