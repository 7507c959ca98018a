"""Programs of a computer that is switched off for a while: they stand still, and nobody can connect to them.

A stopped program's listening socket would go on accepting connections in the kernel, so it is closed for as long: who
asks is refused at once, as by a computer whose network processor runs while its board does not. Connections that are
open stay so and are silent. What the programs hold in memory stays.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

from isl_emu.errors import MachineError
from isl_emu.nodes.namespaces import checked

PIDFD_GETFD = 438  # Source: include/uapi/asm-generic/unistd.h; one number for all architectures since Linux 5.6
STOP_TIMEOUT_S = 5.0
LOOK_INTERVAL_S = 0.001
_libc = ctypes.CDLL(None, use_errno=True)


class Suspension:
    """Processes at a stand, until `resume`."""

    def __init__(self) -> None:
        self._processes: dict[int, int] = {}  # by process id, as seen from here, a descriptor of it
        self._listening: list[socket.socket] = []

    def hold(self, pids: Collection[int]) -> None:
        """Bring processes to a stand, if they are not yet.

        Raises:
            MachineError: one does not come to a stand, or its sockets cannot be reached.
        """
        fresh = [pid for pid in pids if pid not in self._processes]
        opened = {pid: process for pid in fresh if (process := _opened(pid)) is not None}
        self._processes |= opened
        for process in opened.values():
            _send(process, signal.SIGSTOP)
        try:
            for pid in opened:
                _await_stand(pid)
            listening = [sock for pid in opened for sock in _listening_sockets(pid)]
        except OSError as error:
            self.resume()
            raise MachineError(
                f"satellite computer: cannot be switched off ({error}), but its battery or heat demands it; "
                "run as root on Linux 5.6 or later, or use --machine guest"
            ) from error
        for sock in listening:
            sock.shutdown(socket.SHUT_RD)
        self._listening += listening

    def resume(self) -> None:
        """Let them accept connections again and go on; may be called again."""
        while self._listening:
            with self._listening.pop() as sock, suppress(OSError):  # whoever is gone needs it no more
                sock.listen(socket.SOMAXCONN)
        while self._processes:
            _, process = self._processes.popitem()
            _send(process, signal.SIGCONT)
            os.close(process)


def _opened(pid: int) -> int | None:
    """A pidfd: a process id may be somebody else's by the time it goes on. None if it is gone."""
    with suppress(ProcessLookupError):
        return os.pidfd_open(pid)
    return None


def _send(process: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(process, number)


def _await_stand(pid: int) -> None:
    """Wait until every thread is stopped, or gone."""
    give_up_s = time.monotonic() + STOP_TIMEOUT_S
    while not all(state in "TtZX" for state in _thread_states(pid)):
        if time.monotonic() > give_up_s:
            raise TimeoutError(f"process {pid} does not stop within {STOP_TIMEOUT_S:g} s")
        time.sleep(LOOK_INTERVAL_S)


def _thread_states(pid: int) -> Iterator[str]:
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                yield (task / "stat").read_text().rpartition(")")[2].split()[0]


def _listening_sockets(pid: int) -> Iterator[socket.socket]:
    """Duplicates of the sockets on which a process listens; none if it is gone."""
    process = _opened(pid)
    if process is None:
        return
    try:
        with suppress(FileNotFoundError, ProcessLookupError):
            for entry in Path(f"/proc/{pid}/fd").iterdir():
                if os.readlink(entry).startswith("socket:"):
                    yield from _if_it_listens(_duplicate(process, int(entry.name)))
    finally:
        os.close(process)


def _duplicate(process: int, descriptor: int) -> socket.socket:
    """A socket of another process; it is the same one, under a descriptor of ours."""
    return socket.socket(fileno=checked(_libc.syscall(PIDFD_GETFD, process, descriptor, 0), "pidfd_getfd"))


def _if_it_listens(sock: socket.socket) -> Iterator[socket.socket]:
    internet = sock.family in (socket.AF_INET, socket.AF_INET6)
    if internet and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        yield sock
    else:
        sock.close()
