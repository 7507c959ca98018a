"""How a run's calendar is asked, from the machine or from inside a guest: two files in a folder that both can see.

Whoever wants something writes `wish.json`; the calendar takes note within a fiftieth of a second of the wall clock, and
at least five times a second writes `state.json`, in which the serial number of the last wish that it follows stands.
"""

from __future__ import annotations

import contextlib
import json
import os
import tty
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from isl_emu.files import write_whole
from isl_emu.units import NS_PER_S

FOLDER_VARIABLE = "ISL_EMU_CALENDAR"  # names the folder to what runs in a guest
AT_ONCE_NS = 0
# A guest's root may write a number to it: the calendar then looks at the wish, and says where it stands, before any
# time passes; its answer is then read there. The lowest bit says which question it is, and which answer.
LOOK_NOW = Path("/sys/kernel/um-ext-time/bc-message")
LOOK = 0  # answered by the wall's time since the first guest joined, ns
IS_READY = 1  # with the time when a guest was ready: answered by the last one's, or 0 if some are not, ns
# Time that stands wakes nobody who looks from time to time, but a bell does: what is written into this file of the
# guest's folder on the machine, a program in the guest reads from its third console.
BELL, BELL_INSIDE = "bell", Path("/dev/tty2")


@dataclass(frozen=True)
class Wish:
    """How time is to go.

    Args:
        serial: larger than that of the wish before.
        hold_ns: time stops at this instant, counted from the calendar's start, with everything before it done and
            packets at rest on their way; a past one stops it at once. None to go on.
        factor: emulated seconds per second of the wall at most; None for as fast as can be.
    """

    serial: int = 0
    hold_ns: int | None = None
    factor: float | None = None


@dataclass(frozen=True)
class GuestState:
    """Where one guest stands.

    Args:
        number: which guest.
        now_ns: its emulated time.
        next_ns: its next event; None while it runs, or if it sleeps for ever.
        computing_s: for how long by the wall it has run without a word.
    """

    number: int
    now_ns: int
    next_ns: int | None
    computing_s: float


@dataclass(frozen=True)
class CalendarState:
    """How time goes.

    Args:
        serial: of the wish that is followed.
        now_ns: emulated time since the start that all guests have reached.
        wall_s: the wall's, since the first guest joined.
        held: whether time stands because it was wished.
        guests: those that are there.
    """

    serial: int
    now_ns: int
    wall_s: float
    held: bool
    guests: tuple[GuestState, ...]


class CalendarControl:
    """Asks the calendar that serves a folder."""

    def __init__(self, folder: Path):
        self._folder = folder

    def state(self) -> CalendarState | None:
        """What the calendar said last; None before its first word."""
        try:
            record = _read_anew(self._folder / "state.json")
        except FileNotFoundError:
            return None
        return CalendarState(**{**record, "guests": tuple(GuestState(**guest) for guest in record["guests"])})

    def wall_s(self) -> float:
        """The wall's time since the guest joined, for who is in it, where clocks show emulated time.

        Raises:
            OSError: this is no guest that a calendar drives.
        """
        return _asked(LOOK) / NS_PER_S

    def all_ready_ns(self, own_ns: int) -> int | None:
        """When the last guest was ready, for who is in one that was at a time of its own; None if some are not."""
        return _asked(own_ns << 1 | IS_READY) or None

    def wish(self) -> Wish:
        """What was wished last."""
        try:
            return Wish(**json.loads((self._folder / "wish.json").read_text()))
        except FileNotFoundError:
            return Wish()

    def hold(self, at_ns: int = AT_ONCE_NS) -> Wish:
        """Let time stop at an instant."""
        before = self.wish()
        return self._ask(Wish(before.serial + 1, at_ns, before.factor))

    def go_on(self) -> Wish:
        """Let time go on."""
        before = self.wish()
        return self._ask(Wish(before.serial + 1, None, before.factor))

    def pace(self, factor: float | None) -> Wish:
        """Never let time be ahead of the wall clock times a factor; None for as fast as can be."""
        before = self.wish()
        return self._ask(Wish(before.serial + 1, before.hold_ns, factor))

    def _ask(self, wish: Wish) -> Wish:
        write_whole(self._folder / "wish.json", json.dumps(asdict(wish)))
        with contextlib.suppress(OSError):  # not in a guest
            LOOK_NOW.write_text(str(LOOK))
        return wish


def _asked(question: int) -> int:
    """What the calendar answers; others in this guest may ask at the same time."""
    while True:
        LOOK_NOW.write_text(str(question))
        answer = int(LOOK_NOW.read_text(), 16)
        if answer & 1 == question & 1:
            return answer >> 1


def _read_anew(path: Path) -> dict[str, Any]:
    """What a JSON file holds that others replace all the time; a guest may remember a part of one before."""
    while True:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            with contextlib.suppress(ValueError):
                record: dict[str, Any] = json.loads(file.read())
                return record


def calendar_control() -> CalendarControl | None:
    """The control of the calendar that drives this process's time; None in real time."""
    folder = os.environ.get(FOLDER_VARIABLE)
    return None if folder is None else CalendarControl(Path(folder))


def ring(folder: Path) -> None:
    """Ring the bell of the guest that has this folder, if it has one."""
    with contextlib.suppress(OSError):  # no guest, or it is gone
        bell = os.open(folder / BELL, os.O_WRONLY | os.O_NONBLOCK)
        try:
            os.write(bell, b"\n")
        finally:
            os.close(bell)


def rings() -> Iterator[None]:
    """Each time that somebody rings at this guest, in which a calendar drives the time."""
    bell = os.open(BELL_INSIDE, os.O_RDWR | os.O_NOCTTY)
    try:
        tty.setraw(bell)  # what it echoed would ring again
        while os.read(bell, 64):
            yield
    finally:
        os.close(bell)
