"""What breaks in the nodes of a live run, and is mended: by a scenario's faults, or by its user by hand.

A death that was ordered is declared to the watch, so it is none that nobody planned.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Collection, Iterable
from contextlib import suppress

from isl_emu.errors import WorkloadError
from isl_emu.nodes.containers import Container
from isl_emu.nodes.processes import reset_connections
from isl_emu.parts.live_run import LiveRun
from isl_emu.parts.residents import DEAD, GONE, IN_ORDER, STOPPED, Resident

# Takes memory until the kernel, which may not choose it, has killed another process of its group, or it has had enough.
HOG = """import sys
open("/proc/self/oom_score_adj", "w").write("-1000")
most, kept, counter = int(sys.argv[1]), [], sys.argv[2]
def kills():
    return [line.split()[1] for line in open(counter) if line.startswith("oom_kill ")]
before = kills()
while kills() == before and len(kept) << 20 < most:
    kept.append(bytearray(b"x" * (1 << 20)))
"""
HOG_TIMEOUT_S = 60.0
LIKELIEST = "1000"  # as oom_score_adj: the kernel chooses it first


class NodeFaults:
    """What breaks in the nodes of a live run, and is mended."""

    def __init__(self, live: LiveRun):
        self._live = live
        self._stopped: dict[int, list[int]] = {}  # by the identity of a resident

    def begin(self, effect: str, residents: Collection[Resident], node: str | None = None) -> str:
        """Do it to residents, and to the whole node with "power-off": what was done, in a few words.

        Raises:
            MachineError: the kernel does not do it.
        """
        if effect == "power-off":
            assert node is not None, "a node is without power"
            return self._power_off(node, residents)
        doing = {"kill": self._kill, "stop": self._stop, "out-of-memory": self._starve}[effect]
        return "; ".join(doing(resident) for resident in residents) or "nothing ran there"

    def end(self, effect: str, residents: Collection[Resident]) -> str:
        """Let residents go on, or start again: what became of them; that one does not start is written down."""
        doing = self._go_on if effect == "stop" else self._start
        return "; ".join(doing(resident) for resident in residents) or "nothing to start"

    def of(self, node: str) -> list[Resident]:
        """All that runs in a node."""
        return [resident for resident in self._live.residents if resident.node == node]

    def _power_off(self, node: str, residents: Iterable[Resident]) -> str:
        container = self._live.containers.get(node)
        pids = set[int]() if container is None else container.group.pids() - {container.pid}
        for resident in residents:
            resident.hidden(GONE)
        self._live.watch.declare(pids)
        reset_connections(pids)
        _signal(pids, signal.SIGKILL)
        return f"{len(pids)} process{'' if len(pids) == 1 else 'es'} ended with the power"

    def _kill(self, resident: Resident) -> str:
        pids = resident.pids()
        self._live.watch.declare(pids)
        resident.hidden(DEAD)
        _signal(pids, signal.SIGKILL)
        return f"{resident.what} was killed"

    def _stop(self, resident: Resident) -> str:
        pids = self._stopped[id(resident)] = list(resident.pids())
        resident.hidden(STOPPED)
        _signal(pids, signal.SIGSTOP)
        return f"{resident.what} was stopped"

    def _go_on(self, resident: Resident) -> str:
        _signal(self._stopped.pop(id(resident), []), signal.SIGCONT)
        resident.hidden(IN_ORDER)
        return f"{resident.what} went on"

    def _starve(self, resident: Resident) -> str:
        """Leave its container no memory until the kernel has killed it, and then all that it may have.

        In exact time who takes the memory would try again for ever, without time for the other to die: there it gets
        the kernel's signal from here.
        """
        pids, container = resident.pids(), self._live.containers.get(resident.node)
        self._live.watch.declare(pids)
        resident.hidden(DEAD)
        if not pids or container is None or self._live.exact:
            _signal(pids, signal.SIGKILL)
            return f"{resident.what} was killed as for want of memory"
        for pid in pids:
            with suppress(OSError), open(f"/proc/{pid}/oom_score_adj", "w") as score:
                score.write(LIKELIEST)
        before = container.oom_kills()
        starve(container)
        killed = container.oom_kills() - before
        self._live.watch.declare((), node=resident.node, oom_kills=killed)
        _signal(pids, signal.SIGKILL)  # what is left of it, as its parent is gone
        return f"{resident.what} was killed by the kernel for want of memory" if killed else f"{resident.what} survived"

    def _start(self, resident: Resident) -> str:
        try:
            said = resident.start()
        except WorkloadError as error:
            self._live.watch.record(resident.what, resident.node, str(error))
            return str(error)
        resident.hidden(IN_ORDER)
        return said


def starve(container: Container) -> None:
    """Take a container's memory until the kernel has killed one of its processes.

    Raises:
        MachineError: a limit that this kernel does not take.
    """
    with container.group.short_of_memory(container.memory_byte) as left_byte:
        with container.group.oom_counter.open() as counter:
            hog = container.popen(
                [sys.executable, "-c", HOG, str(left_byte), "/proc/self/fd/0"],
                own=True,
                stdin=counter,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        try:
            hog.wait(HOG_TIMEOUT_S)
        finally:
            hog.kill()
            hog.wait()


def _signal(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
