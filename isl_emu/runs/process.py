"""Processes of ours that serve others for a whole run: ready before instant 0, watched while the sky moves."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from isl_emu.errors import WorkloadError

LAST_WORDS_S = 15.0  # to write down what it has


class Service:
    """A process that serves until it is told to stop; an activity that has no end of its own."""

    def __init__(self, name: str, process: subprocess.Popen, log: Path):
        self._name, self._process, self._log = name, process, log
        self.pid = process.pid

    def check(self) -> None:
        """Raise a WorkloadError if it has ended."""
        if (status := self._process.poll()) is not None:
            raise WorkloadError(
                f"{self._name}: ended with status {status} ({last_line(self._log)}), but it must serve the whole run; "
                f"see journal/{self._log.name}"
            )

    def await_end(self, timeout_s: float) -> None:
        """It serves as long as somebody may ask."""
        self.check()


@contextmanager
def service(name: str, words: Sequence[str], journal: Path) -> Iterator[Service]:
    """A Python module as a process: the block begins when it has printed its first line, and ends it.

    It is ended by the kernel if this process dies. Its messages go to ``<name>.log`` in the journal.

    Raises:
        WorkloadError: it ended before, with the last line of its log.
    """
    log = journal / f"{name}.log"
    command = ["setpriv", "--pdeathsig", "TERM", sys.executable, "-m", *words]
    with log.open("wb") as messages:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=messages, start_new_session=True
        )
    try:
        if not process.stdout.readline():
            process.wait()
            Service(name, process, log).check()
        yield Service(name, process, log)
    finally:
        _end(process)


def _end(process: subprocess.Popen) -> None:
    process.terminate()
    process.stdout.close()
    try:
        process.wait(LAST_WORDS_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it printed nothing")
