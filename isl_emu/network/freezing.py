"""Bringing everything that runs in a net's nodes to a stand: containers by their cgroups, other programs by signals.

The kernel itself goes on: packets in flight arrive, and its timers run.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress

from isl_emu.network.net import IslNet
from isl_emu.nodes.processes import namespace_ids, processes_in


class NodeFreezer:
    """Stops and continues what runs in the nodes of a net; whoever lives there already when it is called."""

    def __init__(self, net: IslNet):
        self._net = net
        self._frozen: list = []
        self._stopped: list[int] = []  # pidfds: a process id may be somebody else's by the time it goes on

    def freeze(self) -> None:
        """Bring all to a stand."""
        self._frozen += [container for container in self._containers() if container.freeze()]
        inside = set().union(*(container.pids() for container in self._frozen))
        for pid in processes_in(namespace_ids(space.path for space in self._net.backend.spaces)) - inside:
            with suppress(ProcessLookupError):
                self._stopped.append(os.pidfd_open(pid))
                signal.pidfd_send_signal(self._stopped[-1], signal.SIGSTOP)

    def thaw(self) -> None:
        """Let all go on; may be called again."""
        while self._stopped:
            process = self._stopped.pop()
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(process, signal.SIGCONT)
            os.close(process)
        while self._frozen:
            self._frozen.pop().thaw()

    def _containers(self) -> Iterator:
        return (node.container for node in self._net.hosts if node.container is not None)
