"""The clock of a live run, one for all of its processes: it can run in slow motion, and it can be stopped.

It shows the machine's CLOCK_MONOTONIC less the time for which it stood, divided by the slowdown. What it needs for that
is in a small file of the run's journal, which every process maps into its memory: a reading costs no system call but
that for the machine's clock. One process stops the clock and lets it go on; all others only read.

`RunTimes` says when on that clock a run begins and ends, and is how processes of ours are told.
"""

from __future__ import annotations

import argparse
import mmap
import struct
import time
from dataclasses import dataclass
from pathlib import Path

from isl_emu.timebase import Waiting
from isl_emu.units import NS_PER_S

FILE = "clock"  # in a run's journal
NEVER_NS = (1 << 63) - 1
HEAD_START_NS = 3 * NS_PER_S  # before instant 0: for the client and the prober to be ready
LOOK_AGAIN_S = 0.01  # while the clock stands: how late its going on is noticed
_LAYOUT = struct.Struct("@dqq")  # slowdown; counts, in the machine's ns, of _STOOD and _STOP
_STOOD, _STOP = 1, 2  # for how long it has stood; where it will stop, or stands


class RunClock(Waiting):
    """The clock of a live run.

    Args:
        path: the file that holds its state; see `create`.
        slowdown: in place of the run's.
        steers: it may stop and go on.
    """

    def __init__(self, path: Path, slowdown: float | None = None, *, steers: bool = False):
        self._path = path
        with path.open("r+b" if steers else "rb") as file:
            access = mmap.ACCESS_WRITE if steers else mmap.ACCESS_READ
            self._map = mmap.mmap(file.fileno(), _LAYOUT.size, access=access)
        self._words = memoryview(self._map).cast("q")
        self.slowdown = slowdown or _LAYOUT.unpack_from(self._map)[0]

    @classmethod
    def create(cls, journal: Path, slowdown: float) -> RunClock:
        """The clock of a new run; it runs."""
        (journal / FILE).write_bytes(_LAYOUT.pack(slowdown, 0, NEVER_NS))
        return cls(journal / FILE, steers=True)

    def now_ns(self) -> int:
        words = self._words
        while True:
            stood_ns = words[_STOOD]
            machine_ns = min(time.monotonic_ns() - stood_ns, words[_STOP])
            if words[_STOOD] == stood_ns:  # else it stopped and went on in between
                return self.own_ns(machine_ns)

    def timeout_s(self, deadline_ns: int) -> float:
        left_s = max(0.0, self.real_s(deadline_ns - self.now_ns()))
        return max(left_s, LOOK_AGAIN_S) if self.stands else left_s

    def real_s(self, duration_ns: int) -> float:
        return duration_ns * self.slowdown / NS_PER_S

    def own_ns(self, real_ns: int) -> int:
        return real_ns if self.slowdown == 1.0 else round(real_ns / self.slowdown)

    def stood_ns(self) -> int:
        return self._words[_STOOD]

    def without_slow_motion(self) -> RunClock:
        """The same clock as if there were no slow motion: the machine's time less the pauses."""
        return RunClock(self._path, 1.0)

    @property
    def stands(self) -> bool:
        """Whether it is stopped now."""
        return time.monotonic_ns() - self._words[_STOOD] >= self._words[_STOP]

    def stop_at_ns(self, t_ns: int) -> None:
        """Stop when it shows `t_ns`, which must be ahead: nobody ever sees more than that until it goes on."""
        self._words[_STOP] = round(t_ns * self.slowdown)

    def go_on(self) -> None:
        """Go on from where it stands, or do not stop after all."""
        if self.stands:
            self._words[_STOOD] = time.monotonic_ns() - self._words[_STOP]
        self._words[_STOP] = NEVER_NS


def run_clock(journal: Path) -> RunClock:
    """The clock of the live run whose journal this is."""
    return RunClock(journal / FILE)


@dataclass(frozen=True)
class RunTimes:
    """The emulated time of a run, on its clock.

    Args:
        t0_ns: instant 0.
        until_ns: the end of its plan.
    """

    t0_ns: int
    until_ns: int

    @property
    def duration_ns(self) -> int:
        """How long the run lasts."""
        return self.until_ns - self.t0_ns

    def words(self, journal: Path) -> list[str]:
        """The options by which a process of ours learns of a run; `run_parser` reads them."""
        return ["--journal", str(journal), "--t0-ns", str(self.t0_ns), "--until-ns", str(self.until_ns)]

    @classmethod
    def of(cls, options: argparse.Namespace) -> RunTimes:
        """The times among the options that `run_parser` has read."""
        return cls(options.t0_ns, options.until_ns)


def run_parser(module: str, purpose: str | None) -> argparse.ArgumentParser:
    """The command line of a process of ours that takes part in a run; it may add options of its own.

    Args:
        module: its name, as after ``python -m``.
        purpose: its docstring.
    """
    parser = argparse.ArgumentParser(prog=module, description=purpose)
    parser.add_argument("--journal", type=Path, required=True, help="folder of the run's journals")
    parser.add_argument("--t0-ns", type=int, required=True, help="start of the run, on its clock")
    parser.add_argument("--until-ns", type=int, required=True, help="end of the run, on its clock")
    return parser
