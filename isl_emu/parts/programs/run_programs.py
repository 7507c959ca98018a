"""The programs of a scenario, each started in its node when it is due and ended with the run at the latest."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from isl_emu.network.net import IslNet
from isl_emu.parts.live_run import Stage
from isl_emu.runs.journal import Journal
from isl_emu.scenario.programs import Program

LOOK_INTERVAL_S = 0.2  # between two looks at whether a program has ended
KILL_AFTER_S = 5.0  # from SIGTERM


class ProgramThread(threading.Thread):
    """Starts one program, waits for its end or ends it, and records what became of it.

    Args:
        t0_ns: instant 0 on the run's clock.
        journal: takes its record.
    """

    def __init__(self, program: Program, stage: Stage, net: IslNet, t0_ns: int, journal: Journal):
        super().__init__(name=f"program {program.name}", daemon=True)
        self.stopped = threading.Event()
        self._program = program
        self._node = net.get(program.node)
        self._clock = stage.clock
        self._t0_ns = t0_ns
        self._end_ns = stage.plan.grid.duration_ns
        self._log = stage.folder.path / "programs" / f"{program.name}.log"
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
            _end(process)
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


class ProgramsActivity:
    """All programs of a run; none of them can fail it."""

    def __init__(self, threads: list[ProgramThread]):
        self._threads = threads

    def check(self) -> None:
        """Nothing: how a program ends is a result."""

    def await_end(self, timeout_s: float) -> None:
        """Let programs that are about to end do so: their time is that of the run."""
        for thread in self._threads:
            thread.join(timeout_s)


@contextmanager
def programs(stage: Stage, net: IslNet, t0_ns: int) -> Iterator[ProgramsActivity]:
    """Start what the scenario lets run in its nodes, each when it is due; end it all with the block."""
    (stage.folder.path / "programs").mkdir(exist_ok=True)
    with Journal(stage.folder.journal / "programs.jsonl") as journal:
        threads = [ProgramThread(program, stage, net, t0_ns, journal) for program in stage.scenario.program]
        for thread in threads:
            thread.start()
        try:
            yield ProgramsActivity(threads)
        finally:
            for thread in threads:
                thread.stopped.set()
            for thread in threads:
                thread.join()


def _end(process: subprocess.Popen) -> None:
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(KILL_AFTER_S)
        return
    process.kill()
    process.wait()
