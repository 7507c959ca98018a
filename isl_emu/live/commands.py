"""A command or a shell in a node of a live run, for who asks from a second terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import IO, Any

from isl_emu.live.control import Answer
from isl_emu.runs.process import LAST_WORDS_S

POLL_S = 0.05
MOST_CELLS, USUAL_CELLS = 10_000, (24, 80)  # of a terminal: rows and columns
PIECE_BYTE = 65_536
# A session leader that opens a terminal gets it as its own. Its kind comes as $0, the prompt as $1.
SHELL = """unset PROMPT_COMMAND; export TERM="$0" PS1="$1"
if command -v bash > /dev/null; then set -- bash --norc; else set -- sh; fi
exec "$@" -i 0<>/proc/self/fd/0 1>&0 2>&1"""
# What a shell returns, too.
CANCELLED, NOT_FOUND, NOT_EXECUTABLE, SIGNALLED = 130, 127, 126, 128


def run_command(node: Any, request: Mapping[str, Any], answer: Answer) -> int:
    """Run a command in a node until it ends or nobody waits for it any more; its status is as a shell has it."""
    reads = subprocess.PIPE if request["stdin"] else subprocess.DEVNULL
    try:
        process = node.popen_in_out(
            list(request["argv"]), stdin=reads, stdout=answer.output, stderr=answer.errors, bufsize=0
        )
    except (FileNotFoundError, PermissionError) as error:
        answer.errors.write(f"exec: {request['argv'][0]}: {error.strerror}\n".encode())
        return NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
    if process.stdin is not None:
        threading.Thread(target=_feed, args=(process, process.stdin, answer), name="input", daemon=True).start()
    return _status_of(process, answer)


def in_terminal(node: Any, request: Mapping[str, Any], answer: Answer) -> int:
    """Run a shell in a node at a terminal of its own, as large as that of who asks."""
    here, there = pty.openpty()
    with open(here, "r+b", buffering=0) as terminal:
        asked = zip(request["terminal"], USUAL_CELLS)  # a terminal that nobody has sized has none
        rows, columns = (min(max(int(number), 0), MOST_CELLS) or usual for number, usual in asked)
        fcntl.ioctl(there, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))
        try:
            words = ["/bin/sh", "-c", SHELL, str(request["kind"]), f"{node.name}$ "]
            process = node.popen_in_out(words, stdin=there, stdout=there, stderr=there)
        except OSError as error:
            answer.errors.write(f"shell: {words[0]}: {error.strerror}\n".encode())
            return NOT_FOUND
        finally:
            os.close(there)

        def show() -> None:
            with suppress(OSError):  # all that had it open have ended
                while piece := terminal.read(PIECE_BYTE):
                    answer.output.write(piece)

        showing = threading.Thread(target=show, name="terminal", daemon=True)
        showing.start()
        with open(os.dup(here), "wb", buffering=0) as typed:
            threading.Thread(target=_feed, args=(process, typed, answer), name="input", daemon=True).start()
            status = _status_of(process, answer)
        showing.join(LAST_WORDS_S)  # something that it left behind may hold the terminal for ever
        return status


def _status_of(process: subprocess.Popen[bytes], answer: Answer) -> int:
    """Wait until a program ends or nobody waits for it any more; its status is as a shell has it."""
    left = threading.Event()

    def leave() -> None:
        while process.returncode is None and not left.is_set():
            if answer.cancelled():
                left.set()
                os.killpg(process.pid, signal.SIGKILL)  # it has a session of its own
            time.sleep(POLL_S)

    threading.Thread(target=leave, daemon=True).start()
    status = int(process.wait())  # without a look at any time: that may stand
    if left.is_set():
        return CANCELLED
    return status if status >= 0 else SIGNALLED - status


def _feed(process: subprocess.Popen[bytes], file: IO[bytes], answer: Answer) -> None:
    """Give a program what it is to read, until that or the program ends."""
    with suppress(BrokenPipeError, OSError, ValueError), file:
        while process.poll() is None and (piece := answer.read()) != b"":
            if piece is None:
                time.sleep(POLL_S)
            else:
                # Write to an unbuffered stream, which may take less at once
                rest = memoryview(piece)
                while rest:
                    rest = rest[file.write(rest) :]
