"""What a part does in a live run: an activity is started before instant 0, begun with it, and ended with the run."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import ClassVar

from isl_emu.errors import WorkloadError
from isl_emu.runs.clock import RunTimes
from isl_emu.runs.process import LAST_WORDS_S, Watched, end, last_line, start_module


class Activity:
    """One thing that goes on in a live run; the defaults do nothing.

    It was started by `Part.start`: what it needs to be ready before instant 0 is ready then.
    """

    def begin(self, times: RunTimes, ending: ExitStack) -> None:
        """Begin, a little before instant 0; `ending` ends it when the emulated time is over."""

    def check(self) -> None:
        """Raise a WorkloadError if it has failed."""

    def watched(self) -> Iterable[Watched]:
        """Its processes, once it has begun, that are to last as long as the run; that one dies is written down."""
        return ()

    def await_end(self, timeout_s: float) -> None:
        """Let it come to its own end, which is that of the run; return after `timeout_s` in any case."""


class RunProcess(Activity):
    """A process of ours from the beginning of a run to its end, which may fail the run.

    That it is killed ends what it does, and not the run: it is written down (`watched`), and the verdict tells.

    It is told the run's journal and times on its command line; its output goes to ``<name>.log`` in the journal.

    Args:
        words: its module and further options.
    """

    patience_s: ClassVar[float] = LAST_WORDS_S

    def __init__(self, name: str, words: Sequence[str], journal: Path):
        self._name, self._words, self._journal = name, words, journal
        self._process: subprocess.Popen[bytes] | None = None

    def begin(self, times: RunTimes, ending: ExitStack) -> None:
        with (self._journal / f"{self._name}.log").open("wb") as output:
            module, *words = self._words
            command = [module, *times.words(self._journal), *words]
            self._process = start_module(command, stdout=output, stderr=output)
        ending.callback(end, [self._process], self.patience_s)

    def check(self) -> None:
        if self._process is not None and (status := self._process.poll() or 0) > 0:
            log = self._journal / f"{self._name}.log"
            raise WorkloadError(
                f"{self._name}: it ended with status {status} ({last_line(log)}), but must end with 0; "
                f"see journal/{log.name}"
            )

    def watched(self) -> Iterable[Watched]:
        if self._process is not None:
            yield Watched(self._process, self._name, log=self._journal / f"{self._name}.log", may_end=True)

    def await_end(self, timeout_s: float) -> None:
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):  # then it is told to stop, and writes what it has
                self._process.wait(timeout_s)
        self.check()


class Service(Activity):
    """A process of ours that serves others until it is told to stop, from before the beginning of a run.

    That it is killed is written down, as of a `RunProcess`.

    Its messages go to ``<name>.log`` in the journal. It is ready when it has printed its first line.

    Args:
        words: its module and options.
        undo: ends it.

    Raises:
        WorkloadError: it ended before it was ready, with the last line of its log.
    """

    def __init__(self, name: str, words: Sequence[str], journal: Path, undo: ExitStack):
        self._name, self._log = name, journal / f"{name}.log"
        with self._log.open("wb") as messages:
            self._process = start_module(words, stdout=subprocess.PIPE, stderr=messages)
        undo.callback(end, [self._process])
        assert self._process.stdout is not None
        undo.callback(self._process.stdout.close)
        self.pid, self._ready = self._process.pid, False
        if not self._process.stdout.readline():
            self._process.wait()
            self.check()
        self._ready = True

    def check(self) -> None:
        if (status := self._process.poll()) is not None and (status >= 0 or not self._ready):
            raise WorkloadError(
                f"{self._name}: ended with status {status} ({last_line(self._log)}), but it must serve the whole run; "
                f"see journal/{self._log.name}"
            )

    def watched(self) -> Iterable[Watched]:
        yield Watched(self._process, self._name, log=self._log)

    def await_end(self, timeout_s: float) -> None:
        """It serves as long as somebody may ask."""
        self.check()
