"""The programs of a scenario, each started in its node when it is due and ended with the run at the latest."""

from __future__ import annotations

import shutil
import subprocess
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from isl_emu.parts.activity import Activity
from isl_emu.parts.live_run import LiveRun
from isl_emu.runs.folder import RunFolder
from isl_emu.runs.journal import Journal
from isl_emu.runs.process import end, kill
from isl_emu.runs.times import RunTimes
from isl_emu.scenario.programs import Program

JOURNAL = "programs"
STARTS_JOURNAL = "program_starts.jsonl"  # for who asks how many run
LOOK_INTERVAL_S = 0.2  # between two looks at whether a program has ended
KILL_AFTER_S = 5.0  # from SIGTERM
LOGS = "programs"  # in the run folder


def log_of(name: str, folder: RunFolder) -> Path:
    """What a program or workload has printed."""
    return folder.path / LOGS / f"{name}.log"


class ProgramThread(threading.Thread):
    """Starts one program, waits for its end or ends it, and records what became of it.

    Args:
        own: takes its process id.
        starts: takes a record when it is started; `ends` what became of it.
    """

    def __init__(self, program: Program, live: LiveRun, times: RunTimes, own: set[int], starts: Journal, ends: Journal):
        super().__init__(name=f"program {program.name}", daemon=True)
        self.stopped = threading.Event()
        self._program, self._live, self._times = program, live, times
        self._own, self._starts, self._ends = own, starts, ends

    def run(self) -> None:
        program, live, run_ns = self._program, self._live, self._times.duration_ns
        end_ns = run_ns if program.duration_ns is None else min(program.at_ns + program.duration_ns, run_ns)
        if live.clock.wait_until_ns(self._times.t0_ns + program.at_ns, self.stopped):
            return self._record(t_start_ns=None, outcome="not started")
        start_ns = self._now_ns()
        process = self._start()
        if process is None:
            return self._record(t_start_ns=start_ns, outcome="cannot be started")
        while process.poll() is None and self._now_ns() < end_ns and not self.stopped.wait(LOOK_INTERVAL_S):
            pass
        ended = process.poll() is None
        if ended and live.containers[program.node].suspended:  # it stands still, and hears nothing
            kill([process])
        elif ended:
            end([process], KILL_AFTER_S)
        outcome = "ended by isl-emu" if ended else "ended"
        return self._record(t_start_ns=start_ns, outcome=outcome, status=process.returncode)

    def _start(self) -> subprocess.Popen[bytes] | None:
        """The program in its node's container; None if there is no such program."""
        program = self._program
        with log_of(program.name, self._live.folder).open("wb") as output:
            if shutil.which(program.command[0]) is None:
                output.write(f"{program.command[0]}: there is no such program\n".encode())
                return None
            self._starts.append({"name": program.name, "t_ns": self._now_ns()})
            process = self._live.containers[program.node].popen(
                program.command,
                cwd=Path.cwd(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self._own.add(process.pid)
        return process

    def _now_ns(self) -> int:
        return self._live.clock.now_ns() - self._times.t0_ns

    def _record(self, **facts: Any) -> None:
        program = self._program
        what = {"name": program.name, "node": program.node, "command": list(program.command)}
        self._ends.append({**what, "t_end_ns": self._now_ns(), "status": None, **facts})


class Programs(Activity):
    """All programs of a run, each started when it is due; none of them can fail it: how one ends is a result.

    Args:
        own: takes their process ids.
    """

    def __init__(self, live: LiveRun, own: set[int]):
        self._live, self._own = live, own
        self._threads: list[ProgramThread] = []

    def begin(self, times: RunTimes, ending: ExitStack) -> None:
        journal = self._live.folder.journal
        starts, ends = (ending.enter_context(Journal(journal / name)) for name in (STARTS_JOURNAL, f"{JOURNAL}.jsonl"))
        self._threads = [
            ProgramThread(program, self._live, times, self._own, starts, ends)
            for program in self._live.scenario.program
        ]
        for thread in self._threads:
            thread.start()
            ending.callback(thread.join)
        for thread in self._threads:
            ending.callback(thread.stopped.set)  # of all, before any is waited for

    def await_end(self, timeout_s: float) -> None:
        """Let programs that are about to end do so: their time is that of the run."""
        for thread in self._threads:
            thread.join(timeout_s)
