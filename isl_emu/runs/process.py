"""The processes of a run: started from a module of ours, watched, and ended in order."""

from __future__ import annotations

import os
import select
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isl_emu.runs.journal import INCIDENTS_JOURNAL, PROCESSES_JOURNAL, Journal, read_journal

LAST_WORDS_S = 15.0  # for a process to write down what it has
# `python -m` finds modules in the current folder first: a random.py there would be taken for Python's own.
_RUN_MODULE = """import sys
sys.path = [entry for entry in sys.path if entry]
import os
sys.path.append(os.getcwd())
import runpy
runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
"""


def module_command(module: str, *words: str) -> list[str]:
    """The command that runs a Python module of ours; what lies in the current folder is found last."""
    return [sys.executable, "-c", _RUN_MODULE, module, *words]


def start_module(words: Sequence[str], **streams: Any) -> subprocess.Popen[bytes]:
    """Start a Python module of ours as a process, which the kernel ends if this one dies.

    Args:
        words: the module and its options.
        streams: as of `subprocess.Popen`; it reads nothing if they do not say what.
    """
    command = ["setpriv", "--pdeathsig", "TERM", *module_command(*words)]
    return subprocess.Popen(command, **{"stdin": subprocess.DEVNULL, **streams}, start_new_session=True)


def end(processes: Iterable[subprocess.Popen[Any]], timeout_s: float = LAST_WORDS_S) -> None:
    """Tell processes to end, wait for that together, and kill those that have not in time."""
    processes = list(processes)
    for process in processes:
        process.terminate()
    until_s = time.monotonic() + timeout_s
    for process in processes:
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, until_s - time.monotonic()))
    kill(processes)


def kill(processes: Iterable[subprocess.Popen[Any]]) -> None:
    """Kill processes, which have nothing to write down, and wait until they are gone."""
    processes = list(processes)
    for process in processes:
        process.kill()
    for process in processes:
        process.wait()


def last_line(log: Path) -> str:
    """What a process printed last."""
    lines = log.read_text(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it printed nothing")


def started_as(journal: Path, pid: int) -> str | None:
    """What a process in a container of a live run was started as, and in which node.

    One that computes from its first instruction on is known by this: that it was started, and its id never came.
    """
    begun: dict[tuple[str, str], int] = {}
    for record in read_journal(journal / f"{PROCESSES_JOURNAL}.jsonl").records:
        words, node = shlex.join(record["argv"]), record["node"]
        if record["pid"] == pid:
            return f"{words} in {node}"
        begun[words, node] = begun.get((words, node), 0) + (1 if record["pid"] is None else -1)
    return next((f"{words} in {node}" for (words, node), count in reversed(begun.items()) if count), None)


def cause_of_death(status: int | None, oom_kills: int = 0, log: Path | None = None) -> str:
    """Why a process ended, in one sentence.

    Args:
        oom_kills: how many processes of its container the kernel has killed for want of memory since it began.
        log: what it printed.
    """
    said = f" ({last_line(log)})" if log is not None and log.exists() and log.stat().st_size else ""
    if oom_kills:
        return f"the kernel killed a process, because its container wanted more memory than it may take{said}"
    if status is not None and status < 0:
        with suppress(ValueError):
            return f"it was killed by signal {-status}, {signal.Signals(-status).name}{said}"
    return f"it ended with status {status}{said}"


@dataclass(frozen=True)
class Watched:
    """A process that is to last as long as a run, as who watches it knows it.

    Args:
        what: it is, such as "model server".
        node: in which it is; None if it is in all.
        oom_kills: of its container so far.
        may_end: whether it may end by itself with status 0.
    """

    process: subprocess.Popen[Any]
    what: str
    node: str | None = None
    log: Path | None = None
    oom_kills: Callable[[], int] = int
    may_end: bool = False


class Watch(threading.Thread):
    """Writes down which processes of a run die that were to last as long as it, when, and why.

    The kernel tells of a death at once (pidfd_open(2)), so nothing is asked while all live.

    Args:
        journal: the run's journal folder.
        now_ns: the run's clock.
    """

    def __init__(self, journal: Path, now_ns: Callable[[], int]):
        super().__init__(name="watch", daemon=True)
        self._now_ns, self._t0_ns = now_ns, 0
        self._journal = Journal(journal / f"{INCIDENTS_JOURNAL}.jsonl")
        self._epoll, self._ended = select.epoll(), os.eventfd(0)
        self._epoll.register(self._ended, select.EPOLLIN)
        self._watched: dict[int, tuple[Watched, int]] = {}
        self._short_of_memory: set[str | None] = set()  # nodes of which that is written down, or is no death
        self._declared, self._declared_oom_kills = set[int](), Counter[str]()  # by process id; by node

    def add(self, watched: Watched) -> None:
        """Watch a process from now on; before `begin` nothing is written down, as the beginning fails by itself."""
        self._declared.discard(watched.process.pid)  # of one that had the same id
        descriptor = os.pidfd_open(watched.process.pid)
        self._watched[descriptor] = watched, watched.oom_kills()
        self._epoll.register(descriptor, select.EPOLLIN)

    def begin(self, t0_ns: int) -> None:
        """Watch, in a run whose instant 0 is at this time of the clock."""
        self._t0_ns = t0_ns
        self.start()

    def end(self) -> None:
        """Watch no longer: from now on processes are ended on purpose."""
        if self.is_alive():
            os.eventfd_write(self._ended, 1)
            self.join()

    def close(self) -> None:
        """Let go of everything; may be called again."""
        self.end()
        if self._epoll.closed:
            return
        for descriptor in (*self._watched, self._ended):
            os.close(descriptor)
        self._watched.clear()
        self._epoll.close()
        self._journal.close()

    def declare(self, pids: Iterable[int], node: str = "", oom_kills: int = 0) -> None:
        """That some processes are about to die by a fault that was ordered: that is no death that nobody planned.

        Args:
            oom_kills: how many the kernel has killed in the container of `node` by order.
        """
        self._declared.update(pids)
        self._declared_oom_kills[node] += oom_kills

    def is_declared(self, pid: int) -> bool:
        """Whether a process is to die, or has died, by order."""
        return pid in self._declared

    def excuse_memory(self, node: str) -> None:
        """That something in a node's container is killed for want of memory is a result of the run."""
        self._short_of_memory.add(node)

    def count_killed(self, node: str, oom_kills: int) -> None:
        """Write down at the end that others in a container were killed for want of memory."""
        if oom_kills > self._declared_oom_kills[node] and node not in self._short_of_memory:
            self.record("container", node, cause_of_death(None, oom_kills), short_of_memory=True)

    def record(self, what: str, node: str | None, cause: str, *, short_of_memory: bool = False) -> None:
        """Write down that something has died now."""
        if short_of_memory:
            self._short_of_memory.add(node)
        self._journal.append({
            "t_ns": self._now_ns() - self._t0_ns,
            "t_end_ns": None,
            "kind": "death",
            "node": node,
            "what": what,
            "cause": cause,
        })  # fmt: skip

    def run(self) -> None:
        while True:
            ready = [descriptor for descriptor, _ in self._epoll.poll()]
            if self._ended in ready:
                return
            for descriptor in ready:
                self._epoll.unregister(descriptor)
                watched, oom_before = self._watched[descriptor]
                status = watched.process.poll()
                if (status or not watched.may_end) and not self.is_declared(watched.process.pid):
                    oom_kills = watched.oom_kills() - oom_before
                    cause = cause_of_death(status, oom_kills, watched.log)
                    self.record(watched.what, watched.node, cause, short_of_memory=bool(oom_kills))
