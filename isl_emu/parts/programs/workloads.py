"""The processes of a user's workloads, each in the container of its first node from before the run begins."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path

from isl_emu.errors import WorkloadError
from isl_emu.parts.activity import Activity
from isl_emu.parts.live_run import LiveRun
from isl_emu.parts.programs.programs import LOGS, log_of
from isl_emu.runs.process import LAST_WORDS_S, end, kill, last_line
from isl_emu.runs.times import RunTimes
from isl_emu.scenario.programs import UserWorkload


class WorkloadProcess(Activity):
    """The process of one workload, whose failure fails the run; what it prints is in programs/NAME.log.

    In its container it does not see the run folder, nor the networks and limits of other nodes. So it gets this
    machine's root as an open descriptor, and is told on its standard input where they are.

    Args:
        own: takes its process id.
    """

    def __init__(self, live: LiveRun, workload: UserWorkload, own: set[int]):
        self._workload, self._log = workload, log_of(workload.name, live.folder)
        self._container = live.containers[workload.nodes[0]]
        machine = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        words = [sys.executable, "-m", "isl_emu.parts.programs.user_workload", "--name", workload.name]
        words += ["--folder", str(live.folder.path.resolve()), "--machine", f"/proc/self/fd/{machine}"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        try:
            with self._log.open("wb") as log:
                self._process = self._container.popen(
                    words, text=True, cwd=Path.cwd(), stderr=log, pass_fds=(machine,), **pipes
                )
        finally:
            os.close(machine)
        own.add(self._process.pid)
        live.undo.callback(kill, [self._process])  # unless it has ended with the run
        self._tell({
            node: {
                "netns": os.path.realpath(live.containers[node].netns_path),
                "groups": [str(folder / "cgroup.procs") for folder in live.containers[node].group.folders],
            }
            for node in workload.nodes
        })  # fmt: skip

    def await_ready(self) -> None:
        """Wait until it has loaded its function.

        Raises:
            WorkloadError: it has ended instead.
        """
        assert self._process.stdout is not None
        if not self._process.stdout.readline():
            self._process.wait()
            raise WorkloadError(self._why("be ready before the run begins"))

    def begin(self, times: RunTimes, ending: ExitStack) -> None:
        ending.callback(self._end)
        self._tell(asdict(times))

    def check(self) -> None:
        if self._process.poll():
            raise WorkloadError(self._why("end with 0"))

    def await_end(self, timeout_s: float) -> None:
        if not self._container.suspended:
            with suppress(subprocess.TimeoutExpired):  # then it is told to stop, and writes what it has
                self._process.wait(timeout_s)
        self.check()

    def _tell(self, what: object) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended, which is noticed elsewhere
            self._process.stdin.write(json.dumps(what) + "\n")
            self._process.stdin.flush()

    def _end(self) -> None:
        """It may have something to write down, unless its computer is off."""
        if self._process.poll() is None:
            kill([self._process]) if self._container.suspended else end([self._process], LAST_WORDS_S)

    def _why(self, rule: str) -> str:
        name, status = self._workload.name, self._process.returncode
        if self._container.oom_kills():
            return (
                f"workload {name}: its container needs more memory than it may take, but a workload must {rule}; raise "
                f"workload.memory, and see {LOGS}/{name}.log"
            )
        return (
            f"workload {name}: it ended with status {status} ({last_line(self._log)}), but must {rule}; "
            f"see {LOGS}/{name}.log"
        )
