"""The calendar's process: sockets, the wall clock and the folder around `isl_emu.machine.calendar`.

Run as ``python -m isl_emu.machine.calendar_process PARENT LISTENER START_UTC_NS GUESTS TRUNKS PATIENCE_S`` in the
calendar's folder (`isl_emu.machine.calendar_control`); LISTENER is a listening socket that it inherits, and TRUNKS is 1
if there are trunks between its guests, else 0. It ends when its last guest does, or the process PARENT that started it.
A guest that computes for longer than its patience while time stands still is named in the file `failed`.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from isl_emu.files import write_whole
from isl_emu.machine.calendar import (
    MESSAGE_BYTE,
    NEVER_NS,
    Calendar,
    Guest,
    Message,
    Operation,
    Throttle,
    unpack_messages,
)
from isl_emu.machine.calendar_control import IS_READY, LOOK, CalendarControl, CalendarState, GuestState, Wish
from isl_emu.machine.guardian import go_first
from isl_emu.units import NS_PER_MS, NS_PER_S

PR_SET_PDEATHSIG = 1  # Source: linux/prctl.h
LOOK_EVERY_NS = 20 * NS_PER_MS  # by the wall: at the wish, and by guests at their consoles while they may not run
TELL_EVERY_NS = 200 * NS_PER_MS
SHARED_BYTE = 8192  # Source: Linux um_timetravel.h: a header of 4,096 bytes and the first clients
READ_BYTE = 64 * MESSAGE_BYTE


class CalendarProcess:
    """Serves guests until the last has left.

    Args:
        listener: where they connect.
        folder: where it is asked, and answers.
        calendar: what it serves.
        guests: how many are to come; nobody runs before all have.
        patience_ns: how long by the wall a guest may run without a word.
    """

    def __init__(self, listener: socket.socket, folder: Path, calendar: Calendar, guests: int, patience_ns: int):
        self._listener, self._folder, self._calendar = listener, folder, calendar
        self._missing, self._patience_ns = guests, patience_ns
        self._control = CalendarControl(folder)
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)
        self._sockets: dict[int, socket.socket] = {}
        self._partial: dict[int, bytes] = {}
        self._heard_ns: dict[int, int] = {}
        self._begun_ns = self._looked_ns = self._told_ns = time.monotonic_ns()
        self._wish = Wish()
        self._wish_file: tuple[int, int] | None = None
        self._throttle = Throttle()
        self._count, self._ready_ns = guests, dict[int, int]()

    def serve(self) -> None:
        """Until the last guest has left."""
        self._tell()
        while self._missing or self._sockets:
            for key, _ in self._selector.select(self._patience_s()):
                if key.data is None:
                    self._accept()
                else:
                    self._hear(key.data)
            wall_ns = time.monotonic_ns()
            if wall_ns - self._looked_ns >= LOOK_EVERY_NS:
                self._looked_ns = wall_ns
                self._look_at_wish()
                self._let_guests_look(wall_ns)
                self._name_the_hung(wall_ns)
            if not self._missing:
                for guest, messages in self._calendar.grants(self._throttle.limit_ns(wall_ns)):
                    self._heard_ns[guest] = wall_ns
                    self._send(guest, messages)
            if wall_ns - self._told_ns >= TELL_EVERY_NS:
                self._tell()
        self._tell()

    def _patience_s(self) -> float:
        """How long to wait for a word: until the next look, or until a guest may run."""
        wall_ns = time.monotonic_ns()
        wait_ns = max(0, self._looked_ns + LOOK_EVERY_NS - wall_ns)
        if self._sockets and all(guest.waiting for guest in self._calendar.guests):
            due_ns = self._throttle.due_in_ns(self._calendar.next_ns(), wall_ns)
            wait_ns = wait_ns if due_ns is None else min(wait_ns, due_ns)
        return wait_ns / NS_PER_S

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        key = self._calendar.join()
        self._sockets[key], self._partial[key], self._heard_ns[key] = connection, b"", time.monotonic_ns()
        self._selector.register(connection, selectors.EVENT_READ, key)
        self._missing = max(0, self._missing - 1)

    def _hear(self, key: int) -> None:
        """Answer all that a guest has said."""
        try:
            data = self._sockets[key].recv(READ_BYTE)
        except ConnectionError:
            data = b""
        if not data:
            self._selector.unregister(self._sockets[key])
            self._sockets.pop(key).close()
            self._calendar.leave(key)
            return
        self._heard_ns[key] = time.monotonic_ns()
        data = self._partial[key] + data
        whole = len(data) - len(data) % MESSAGE_BYTE
        self._partial[key] = data[whole:]
        answers: list[Message] = []
        for message in unpack_messages(data[:whole]):
            if message.operation is Operation.BROADCAST:
                self._look_at_wish()
                self._tell()
                answers.append(Message(Operation.BROADCAST, message.sequence, self._answer_to(key, message.time_ns)))
            answer = self._calendar.receive(key, message)
            if message.operation is Operation.START:
                self._send_first(key, answer)
            else:
                answers += answer
        self._send(key, answers)

    def _answer_to(self, key: int, question: int) -> int:
        """What a guest is told that has asked something (`calendar_control.CalendarControl`)."""
        if question == LOOK:
            return time.monotonic_ns() - self._begun_ns << 1
        self._ready_ns[key] = question >> 1
        return (max(self._ready_ns.values()) if len(self._ready_ns) == self._count else 0) << 1 | IS_READY

    def _send(self, key: int, messages: Sequence[Message]) -> None:
        with contextlib.suppress(ConnectionError):  # its end is read next
            self._sockets[key].sendall(b"".join(message.pack() for message in messages))

    def _send_first(self, key: int, answer: Sequence[Message]) -> None:
        with started_descriptors() as descriptors:
            socket.send_fds(self._sockets[key], [message.pack() for message in answer], descriptors)

    def _look_at_wish(self) -> None:
        """Follow a new wish from this moment on."""
        try:
            status = (self._folder / "wish.json").stat()
        except FileNotFoundError:
            return
        if (status.st_ino, status.st_mtime_ns) == self._wish_file:
            return
        self._wish_file, self._wish = (status.st_ino, status.st_mtime_ns), self._control.wish()
        now_ns = max((guest.now_ns for guest in self._calendar.guests), default=0)
        self._throttle = Throttle(self._wish.hold_ns, self._wish.factor, time.monotonic_ns(), now_ns)
        self._tell()

    def _let_guests_look(self, wall_ns: int) -> None:
        """A guest that may not run yet is woken at the present time: a keyboard or a file may have something for it."""
        if self._throttle.hold_ns is None and self._throttle.factor is None:
            return
        for guest in self._calendar.guests:
            if guest.waiting and guest.next_ns > guest.now_ns:
                latest_ns = min(guest.next_ns, self._throttle.limit_ns(wall_ns) - 1)
                self._calendar.post(guest.key, max(guest.now_ns, latest_ns))

    def _name_the_hung(self, wall_ns: int) -> None:
        """Write down a guest that has run too long without a word: who booted it ends it."""
        for guest in self._calendar.guests:
            silent_ns = wall_ns - self._heard_ns[guest.key]
            if not guest.waiting and silent_ns > self._patience_ns and not (self._folder / "failed").exists():
                write_whole(
                    self._folder / "failed",
                    f"guest {guest.number}: at {guest.now_ns / NS_PER_S:.6f} s it has computed for "
                    f"{silent_ns // NS_PER_S} s of the wall clock while its time stood still, but "
                    f"{self._patience_ns // NS_PER_S} s are the most; let its program sleep while it waits",
                )

    def _tell(self) -> None:
        self._told_ns = time.monotonic_ns()
        state = CalendarState(
            serial=self._wish.serial,
            now_ns=self._calendar.now_ns,
            wall_s=(self._told_ns - self._begun_ns) / NS_PER_S,
            held=self._is_held(),
            guests=tuple(self._guest_state(guest) for guest in self._calendar.guests),
        )
        write_whole(self._folder / "state.json", json.dumps(asdict(state)))

    def _is_held(self) -> bool:
        hold_ns = self._throttle.hold_ns
        return hold_ns is not None and all(guest.stands(hold_ns) for guest in self._calendar.guests)

    def _guest_state(self, guest: Guest) -> GuestState:
        silent_s = 0.0 if guest.waiting else (self._told_ns - self._heard_ns[guest.key]) / NS_PER_S
        next_ns = guest.next_ns if guest.waiting and guest.next_ns < NEVER_NS else None
        return GuestState(guest.number or 0, guest.now_ns, next_ns, silent_s)


@contextlib.contextmanager
def started_descriptors() -> Iterator[list[int]]:
    """What a guest takes unasked with the first answer: memory of version 0, which means messages, and a log."""
    shared, log = os.memfd_create("calendar"), os.open(os.devnull, os.O_RDWR)
    try:
        os.ftruncate(shared, SHARED_BYTE)
        yield [shared, log]
    finally:
        os.close(shared)
        os.close(log)


def main(arguments: Sequence[str]) -> None:
    """Serve the folder in which we were started."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent, listener, start_utc_ns, guests, trunks, patience_s = map(int, arguments)
    if os.getppid() != parent:  # gone before it could take us with it
        return
    go_first(0)  # guests wait for each word of ours
    with socket.socket(fileno=listener) as listening:
        calendar = Calendar(start_utc_ns, trunks=bool(trunks))
        CalendarProcess(listening, Path.cwd(), calendar, guests, patience_s * NS_PER_S).serve()


if __name__ == "__main__":
    main(sys.argv[1:])
