"""The guest's console on the host: two streams, relayed until the guest ends.

One carries the command's output, which goes to our standard output byte for byte; the other what the guest's kernel
and its PID 1 say, of which the end is kept for an error message.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import struct
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from pathlib import Path

READ_BYTE = 65536
LOG_KEPT_BYTE = 8192
LOOK_EVERY_S = 0.5
END_WITHIN_S = 30.0
MCONSOLE_MAGIC = 0xCAFEBABE  # Source: Linux arch/um/drivers/mconsole.h
MCONSOLE_VERSION = 2
MCONSOLE_MAX_BYTE = 512


class Console:
    """Two pairs of connected sockets; the guest gets `guest_end` and `guest_log_end`.

    Args:
        shown: whether our standard output gets what the command writes; otherwise its end is kept as well.

    Not pseudo-terminals: their signal that there is room again comes before there is, and the guest's kernel, which
    waits for just that signal, hangs with its output half written.
    """

    def __init__(self, *, shown: bool = True) -> None:
        self._shown = shown
        self._output, self.guest_end = socket.socketpair()
        self._log, self.guest_log_end = socket.socketpair()
        self._log_tail = b""
        self.log_byte = 0  # how much they wrote so far

    def close(self) -> None:
        """Close all four ends."""
        for end in (self._output, self.guest_end, self._log, self.guest_log_end):
            end.close()

    def log_lines(self, since_byte: int = 0) -> list[str]:
        """The last lines that the kernel and its PID 1 wrote, and the command if not shown; blank ones left out.

        Args:
            since_byte: only what they wrote after so much; see `log_byte`.
        """
        tail = self._log_tail[max(0, since_byte - self.log_byte + len(self._log_tail)) :]
        text = tail.decode(errors="replace").replace("\r", "")
        return [line for line in text.split("\n") if line.strip()]

    def relay(self, ended: int, keyboard: int | None, on_tick: Callable[[], None]) -> None:
        """Copy until the descriptor `ended` becomes readable and everything written before that has been copied.

        Args:
            ended: becomes readable when the guest is gone (a pidfd).
            keyboard: our terminal, whose input the guest gets; None for no input.
            on_tick: called at least every half second.
        """
        sys.stdout.flush()
        with selectors.DefaultSelector() as selector:
            selector.register(self._output, selectors.EVENT_READ, self._show)
            selector.register(self._log, selectors.EVENT_READ, self._keep)
            selector.register(ended, selectors.EVENT_READ)
            if keyboard is not None:
                selector.register(keyboard, selectors.EVENT_READ, lambda: self._type(keyboard, selector))
            running = True
            while running:
                ready = selector.select(LOOK_EVERY_S)
                for key, _ in ready:
                    if key.data:
                        key.data()
                on_tick()
                running = not any(key.fd == ended for key, _ in ready)
        for end, take in ((self._output, self._show), (self._log, self._keep)):
            end.setblocking(False)
            while take():
                pass

    def _show(self) -> int:
        data = _read(self._output.fileno())
        if not self._shown:
            return self._note(data)
        with contextlib.suppress(BrokenPipeError):
            _write_all(sys.stdout.fileno(), data)
        return len(data)

    def _keep(self) -> int:
        return self._note(_read(self._log.fileno()))

    def _note(self, data: bytes) -> int:
        self._log_tail = (self._log_tail + data)[-LOG_KEPT_BYTE:]
        self.log_byte += len(data)
        return len(data)

    def _type(self, keyboard: int, selector: selectors.BaseSelector) -> None:
        data = _read(keyboard)
        if not data:
            selector.unregister(keyboard)
        _write_all(self._output.fileno(), data)


class Interrupter:
    """Ctrl-C and SIGTERM while the guest runs: the command inside gets SIGINT, and the guest is killed if it stays.

    Args:
        folder: the guest's control folder.
        kill: ends the guest at once.
    """

    def __init__(self, folder: Path, kill: Callable[[], None]) -> None:
        self._folder, self._kill = folder, kill
        self._deadline_s: float | None = None

    @property
    def was_used(self) -> bool:
        """Whether somebody interrupted."""
        return self._deadline_s is not None

    def interrupt(self, *_signal: object) -> None:
        """Ask the command to end; kill the guest at the second time, or if the command has not even begun."""
        if self.was_used or not (self._folder / "started").exists():
            self._kill()
        else:
            send_mconsole(self._folder, "cad")
        self._deadline_s = self._deadline_s or time.monotonic() + END_WITHIN_S

    def kill_if_overdue(self) -> None:
        """Kill the guest when it has had its time to end."""
        if self._deadline_s is not None and time.monotonic() > self._deadline_s:
            self._kill()


@contextlib.contextmanager
def listening(interrupt: Callable[..., None]) -> Iterator[None]:
    """Take over SIGINT and SIGTERM of this process, which must be in its main thread."""
    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def send_mconsole(folder: Path, command: str) -> None:
    """Send one command to the guest kernel's management console; a guest that is gone is no error.

    Addressed through a descriptor of the folder, since a socket's path must not exceed 107 characters.
    """
    data = command.encode()
    request = struct.pack(f"<III{MCONSOLE_MAX_BYTE}s", MCONSOLE_MAGIC, MCONSOLE_VERSION, len(data), data)
    short = os.open(folder, os.O_PATH)
    try:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(request, f"/proc/self/fd/{short}/vm/mconsole")
    finally:
        os.close(short)


@contextlib.contextmanager
def raw_terminal(descriptor: int) -> Iterator[None]:
    """The terminal passes every key on unchanged; as it was, afterwards."""
    before = termios.tcgetattr(descriptor)
    tty.setraw(descriptor)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _read(descriptor: int) -> bytes:
    """Nothing at the end, and nothing when there is nothing yet."""
    try:
        return os.read(descriptor, READ_BYTE)
    except OSError:
        return b""


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
