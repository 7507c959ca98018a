"""The programs of a scenario, each started in its node when it is due and ended with the run at the latest."""

from __future__ import annotations

import subprocess
import threading
from contextlib import ExitStack
from typing import Any

from isl_emu.parts.activity import Activity
from isl_emu.parts.live_run import LiveRun
from isl_emu.runs.journal import Journal
from isl_emu.runs.process import end
from isl_emu.runs.times import RunTimes
from isl_emu.scenario.programs import Program

LOOK_INTERVAL_S = 0.2  # between two looks at whether a program has ended
KILL_AFTER_S = 5.0  # from SIGTERM


class ProgramThread(threading.Thread):
    """Starts one program, waits for its end or ends it, and records what became of it.

    Args:
        journal: takes its record.
    """

    def __init__(self, program: Program, live: LiveRun, times: RunTimes, journal: Journal):
        super().__init__(name=f"program {program.name}", daemon=True)
        self.stopped = threading.Event()
        self._program = program
        self._node = live.net.get(program.node)
        self._clock = live.clock
        self._t0_ns = times.t0_ns
        self._end_ns = times.duration_ns
        self._log = live.folder.path / "programs" / f"{program.name}.log"
        self._journal = journal

    def run(self) -> None:
        program = self._program
        end_ns = self._end_ns if program.duration_ns is None else min(program.at_ns + program.duration_ns, self._end_ns)
        if self._clock.wait_until_ns(self._t0_ns + program.at_ns, self.stopped):
            return self._record(t_start_ns=None, outcome="not started")
        start_ns = self._now_ns()
        with self._log.open("wb") as output:
            try:
                process = self._node.popen(
                    list(program.command), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
                )
            except OSError as error:
                output.write(f"{error}\n".encode())
                return self._record(t_start_ns=start_ns, outcome="cannot be started")
        self._follow(process, end_ns)
        ended = process.poll() is None
        if ended:
            end([process], KILL_AFTER_S)
        return self._record(
            t_start_ns=start_ns, outcome="ended by isl-emu" if ended else "ended", status=process.returncode
        )

    def _follow(self, process: subprocess.Popen, end_ns: int) -> None:
        """Return when the program has ended, or its time is over."""
        while process.poll() is None and self._now_ns() < end_ns and not self.stopped.wait(LOOK_INTERVAL_S):
            pass

    def _now_ns(self) -> int:
        return self._clock.now_ns() - self._t0_ns

    def _record(self, **facts: Any) -> None:
        program = self._program
        what = {"name": program.name, "node": program.node, "command": list(program.command)}
        self._journal.append({**what, "t_end_ns": self._now_ns(), "status": None, **facts})


class Programs(Activity):
    """All programs of a run, each started when it is due; none of them can fail it: how one ends is a result."""

    def __init__(self, live: LiveRun):
        self._live = live
        self._threads: list[ProgramThread] = []

    def begin(self, times: RunTimes, ending: ExitStack) -> None:
        (self._live.folder.path / "programs").mkdir(exist_ok=True)
        journal = ending.enter_context(Journal(self._live.folder.journal / "programs.jsonl"))
        self._threads = [ProgramThread(program, self._live, times, journal) for program in self._live.scenario.program]
        for thread in self._threads:
            thread.start()
            ending.callback(thread.join)
        for thread in self._threads:
            ending.callback(thread.stopped.set)  # of all, before any is waited for

    def await_end(self, timeout_s: float) -> None:
        """Let programs that are about to end do so: their time is that of the run."""
        for thread in self._threads:
            thread.join(timeout_s)
