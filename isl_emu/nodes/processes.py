"""The processes that live in a run's network namespaces: found by the namespace itself, never by a name."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress

DEATH_PATIENCE_S = 5.0
DEATH_PAUSE_S = 0.01

NamespaceId = tuple[int, int]  # device and inode of the namespace file


def namespace_ids(paths: Iterable[str]) -> set[NamespaceId]:
    """What identifies the namespaces at some paths; those that are gone are left out."""
    return {found for path in paths if (found := _identity(path))}


def kill_processes_in(namespaces: set[NamespaceId]) -> list[int]:
    """Kill every process whose network namespace is one of these, wait for their end, and return their ids.

    This process itself is never among them. A process that starts others meanwhile is caught by the next round.
    """
    killed: set[int] = set()
    deadline = time.monotonic() + DEATH_PATIENCE_S
    while namespaces and (found := processes_in(namespaces)) and time.monotonic() < deadline:
        for process in found:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        killed |= found
        time.sleep(DEATH_PAUSE_S)
    return sorted(killed)


def processes_in(namespaces: set[NamespaceId]) -> set[int]:
    processes = (int(name) for name in os.listdir("/proc") if name.isdigit())
    return {pid for pid in processes if pid != os.getpid() and _identity(f"/proc/{pid}/ns/net") in namespaces}


def _identity(path: str) -> NamespaceId | None:
    """Device and inode, or None: a process that has ended but is not yet waited for has no namespace any more."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
