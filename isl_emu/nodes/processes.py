"""The processes in a run's nodes, found by their network namespace, never by a name: ended, or brought to a stand.

Two things bring them to a stand. A pause of the whole run (`NodeFreezer`) stops everything at once: containers by their
cgroups, other programs by signals. The kernel itself goes on: packets in flight arrive, and its timers run. And the
computer of one satellite may be switched off for a while (`Suspension`): its programs stand still, and nobody can
connect to them. A stopped program's listening socket would go on accepting connections in the kernel, so it is closed
for as long: who asks is refused at once, as by a computer whose network processor runs while its board does not.
Connections that are open stay so and are silent. What the programs hold in memory stays.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from isl_emu.errors import MachineError
from isl_emu.nodes.cgroups import Cgroup
from isl_emu.nodes.namespaces import checked, libc

DEATH_PATIENCE_S = 5.0
DEATH_PAUSE_S = 0.01
PIDFD_GETFD = 438  # Source: include/uapi/asm-generic/unistd.h; one number for all architectures since Linux 5.6
STAND_PATIENCE_S = 5.0
STAND_PAUSE_S = 0.001

NamespaceId = tuple[int, int]  # device and inode of the namespace file


def namespace_ids(paths: Iterable[str]) -> set[NamespaceId]:
    """What identifies the namespaces at some paths; those that are gone are left out."""
    return {found for path in paths if (found := _identity(path))}


def processes_in(namespaces: set[NamespaceId]) -> set[int]:
    """The processes whose network namespace is one of these, but never this one."""
    processes = (int(name) for name in os.listdir("/proc") if name.isdigit())
    return {pid for pid in processes if pid != os.getpid() and _identity(f"/proc/{pid}/ns/net") in namespaces}


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


def reset_connections(pids: Collection[int]) -> None:
    """Let the TCP connections of processes end with them without a word: a computer without power says no goodbye.

    What is closed then is reset, and no end is sent again and again to who cannot hear it. Linux keeps what is said to
    a socket; who is gone meanwhile is left out.
    """
    for pid in pids:
        with suppress(ProcessLookupError):
            process = os.pidfd_open(pid)
            try:
                for sock in _sockets(pid, process):
                    with sock:
                        if sock.type & socket.SOCK_STREAM and sock.family in (socket.AF_INET, socket.AF_INET6):
                            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            finally:
                os.close(process)


class NodeFreezer:
    """Stops and continues what runs in some nodes; whoever lives there already when it is called.

    Args:
        netns_paths: the nodes' network namespaces.
        groups: of the containers in them.
    """

    def __init__(self, netns_paths: Sequence[str], groups: Sequence[Cgroup]):
        self._netns_paths, self._groups = netns_paths, groups
        self._frozen: list[Cgroup] = []
        self._stopped = _StoppedProcesses()

    def freeze(self) -> None:
        """Bring all to a stand.

        Raises:
            MachineError: something in a container does not come to a stand.
        """
        self._frozen += [group for group in self._groups if group.freeze()]
        frozen = {pid for group in self._frozen for pid in group.pids()}
        self._stopped.stop(processes_in(namespace_ids(self._netns_paths)) - frozen)

    def thaw(self) -> None:
        """Let all go on; may be called again."""
        self._stopped.go_on()
        while self._frozen:
            self._frozen.pop().thaw()


class Suspension:
    """Processes of a computer that is switched off, until `resume`."""

    def __init__(self) -> None:
        self._stopped = _StoppedProcesses()
        self._listening: list[socket.socket] = []

    def hold(self, pids: Collection[int]) -> None:
        """Bring processes to a stand, if they are not yet.

        Raises:
            MachineError: one does not come to a stand, or its sockets cannot be reached.
        """
        stopped = self._stopped.stop(pids)
        try:
            for pid in stopped:
                _await_stand(pid)
            listening = [sock for pid, process in stopped.items() for sock in _listening_sockets(pid, process)]
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
        self._stopped.go_on()


class _StoppedProcesses:
    """Processes that were told to stop, each with its pidfd: an id may be somebody else's by the time it goes on."""

    def __init__(self) -> None:
        self._pidfds: dict[int, int] = {}

    def stop(self, pids: Collection[int]) -> dict[int, int]:
        """Tell those to stop that have not been told yet and are there; they and their pidfds."""
        told: dict[int, int] = {}
        for pid in set(pids) - self._pidfds.keys():
            with suppress(ProcessLookupError):
                self._pidfds[pid] = told[pid] = os.pidfd_open(pid)
                signal.pidfd_send_signal(told[pid], signal.SIGSTOP)
        return told

    def go_on(self) -> None:
        while self._pidfds:
            _, process = self._pidfds.popitem()
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(process, signal.SIGCONT)
            os.close(process)


def _identity(path: str) -> NamespaceId | None:
    """Device and inode, or None: a process that has ended but is not yet waited for has no namespace any more."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _await_stand(pid: int) -> None:
    """Wait until every thread is stopped, or gone."""
    give_up_s = time.monotonic() + STAND_PATIENCE_S
    while not all(state in "TtZX" for state in _thread_states(pid)):
        if time.monotonic() > give_up_s:
            raise TimeoutError(f"process {pid} does not stop within {STAND_PATIENCE_S:g} s")
        time.sleep(STAND_PAUSE_S)


def _thread_states(pid: int) -> Iterator[str]:
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                yield (task / "stat").read_text().rpartition(")")[2].split()[0]


def _listening_sockets(pid: int, process: int) -> list[socket.socket]:
    """The sockets on which a process listens, by descriptors of ours; none if it is gone."""
    found: list[socket.socket] = []
    for sock in _sockets(pid, process):
        internet = sock.family in (socket.AF_INET, socket.AF_INET6)
        if internet and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            found.append(sock)
        else:
            sock.close()
    return found


def _sockets(pid: int, process: int) -> Iterator[socket.socket]:
    """The sockets of a process, by descriptors of ours; none if it is gone."""
    with suppress(FileNotFoundError, ProcessLookupError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            if os.readlink(entry).startswith("socket:"):
                yield socket.socket(
                    fileno=checked(libc.syscall(PIDFD_GETFD, process, int(entry.name), 0), "pidfd_getfd")
                )
