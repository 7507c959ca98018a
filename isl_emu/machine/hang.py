"""Says who computes in a guest whose time stands still meanwhile: early on, and when the calendar gives it up.

Only the guest's kernel knows what it runs. It is asked, and answers on its console line by line.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from isl_emu.errors import MachineError
from isl_emu.machine.calendar_control import CalendarControl
from isl_emu.machine.console import Console, send_mconsole
from isl_emu.runs.process import cause_of_death

WARN_AFTER_S = 30.0
ANSWER_S = 10.0  # a kernel that has not answered after this time runs no process: it is busy itself
SAY_EVERYTHING, SAY_WHAT_YOU_RUN = "sysrq 9", "sysrq p"


class Hang:
    """Looks after one guest.

    Args:
        number: the guest's.
        folder: where its management console listens.
        times: the calendar's folder.
        who: what is known of a process of the guest, by its id.
        patience_s: how long the calendar lets a program compute.
        calendar: the process that lets its time go on, if its time is virtual.
    """

    def __init__(
        self,
        number: int,
        folder: Path,
        times: Path,
        console: Console,
        who: Callable[[int], str | None],
        patience_s: float,
        calendar: subprocess.Popen[bytes] | None = None,
    ):
        self._number, self._folder, self._console, self._who = number, folder, console, who
        self._patience_s, self._calendar = patience_s, calendar
        self._control, self._failed = CalendarControl(times), times / "failed"
        self._asked_s: float | None = None  # by the wall; None if what it said is of another time that stood still
        self._asked_at_byte = 0  # of what it has said
        self._warned = self._gave_up = False

    def look(self) -> bool:
        """Look, at least every half second; whether the guest must be killed."""
        if self._calendar is not None and self._calendar.poll():
            return True
        if self._failed.exists():
            if not self._gave_up:
                self._gave_up = True
                self._ask()
            return self._has_answered()
        silent_s = self._silent_s()
        if silent_s < WARN_AFTER_S:
            self._asked_s, self._warned = None, False
        elif self._asked_s is None:
            self._ask()
        elif not self._warned and self._has_answered():
            self._warned = True
            print(
                f"Warning: time stands still, since something has computed for {silent_s:.0f} s: {self._running()}; "
                f"after {self._patience_s:g} s the run ends",
                file=sys.stderr,
                flush=True,
            )
        return False

    def check(self) -> None:
        """Raise a MachineError if it was given up, or its calendar has died."""
        if self._calendar is not None and (status := self._calendar.poll()):
            why = cause_of_death(status).replace("it ", "its calendar ", 1)
            raise MachineError(
                f"guest kernel: {why}, but no time passes without; "
                "have more memory free if it was the kernel for want of it (`dmesg` tells), and run it again"
            )
        if self._failed.exists():
            problem = f"{self._failed.read_text()} (it runs {self._running()})"
            raise MachineError(problem)

    def _silent_s(self) -> float:
        state = self._control.state()
        guests = () if state is None else state.guests
        return max((guest.computing_s for guest in guests if guest.number == self._number), default=0.0)

    def _ask(self) -> None:
        self._asked_s, self._asked_at_byte = time.monotonic(), self._console.log_byte
        for command in (SAY_EVERYTHING, SAY_WHAT_YOU_RUN):
            send_mconsole(self._folder, command)

    def _has_answered(self) -> bool:
        """Whether it has, or will not any more."""
        overdue = self._asked_s is not None and time.monotonic() > self._asked_s + ANSWER_S
        return overdue or self._answer() is not None

    def _answer(self) -> tuple[int, str] | None:
        """The process, by id and name, that it said it runs since it was asked."""
        said = "\n".join(self._console.log_lines(self._asked_at_byte))
        found = re.search(r"Pid: (\d+), comm: (\S+)", said)
        return None if found is None else (int(found[1]), found[2])

    def _running(self) -> str:
        answer = self._answer()
        if answer is None:
            return "its kernel"
        pid, name = answer
        known = self._who(pid)
        return name if known is None else f"{name} ({known})"
