"""A user's functions that are asked while planning: each in a process of its own, behind the wall of `sandbox`.

The process is a copy of this one, so the plan that a function is asked about is there already; arrays go to it and come
back as bytes of numpy's own format, which hold nothing to execute. It sees Python's modules and the current folder, may
change nothing, starts no other process, and ends with this one.
"""

from __future__ import annotations

import ctypes
import io
import os
import resource
import signal
import socket
import struct
import sys
import time
import warnings
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from isl_emu import timebase
from isl_emu.errors import IslEmuError, MachineError, ScenarioError
from isl_emu.machine import sandbox
from isl_emu.machine.guest import modules_shown, view_of_machine
from isl_emu.machine.uml import inside_guest
from isl_emu.scenario import user_functions

MEMORY_FILES_BYTE = 64 << 20  # of room in its /dev/shm
PRINTED_BYTE = 1 << 16  # what it may print in all
ANSWER_BYTE = 1 << 30
MEMORY_BYTE = 4 << 30  # that it may take, beside what is there already
LOAD_LIMIT_S = 120.0  # modules may be slow to import
PATIENCE_S = 5.0  # beyond the time that it has: it ends by itself, and says in which line it was
_LENGTH = struct.Struct("=Q")
READY, ARRAY, ERROR, NO_WALL = b"r", b"a", b"e", b"w"


class WalledFunction:
    """A user's function; it is called like it, with whole numbers, arrays, and objects that are there already.

    Args:
        name, where, arguments: as of `user_function`.

    Raises:
        ScenarioError: as of `user_function`.
        MachineError: this machine allows no wall.
    """

    def __init__(self, name: str, where: str, arguments: int):
        self._name, self._where, self._arguments = name, where, arguments
        self._start(())

    def __call__(self, *arguments: Any) -> np.ndarray:
        """The array that the function returns.

        Raises:
            ScenarioError: it failed, returned no numbers, or did not return in time.
        """
        sent = [isinstance(argument, (int, np.integer, np.ndarray)) for argument in arguments]
        held = tuple(argument for argument, is_sent in zip(arguments, sent, strict=True) if not is_sent)
        if not _same(held, self._held):
            self._end()
            self._start(held)
        frame = io.BytesIO()
        frame.write(bytes(sent))
        for argument, is_sent in zip(arguments, sent, strict=True):
            if is_sent:
                np.save(frame, np.asarray(argument), allow_pickle=False)
        kind, content = self._ask(frame.getvalue(), timebase.LIMIT_S + PATIENCE_S)
        try:
            assert kind == ARRAY
            return np.asarray(np.load(io.BytesIO(content), allow_pickle=False))
        except (AssertionError, ValueError, EOFError, MemoryError, OSError):
            raise self._error("answered something that is no array") from None

    def _start(self, held: tuple[Any, ...]) -> None:
        """Copy this process, with the objects that the function will be asked about."""
        view = view_of_machine([*modules_shown(), Path.cwd()], [], MEMORY_FILES_BYTE)
        self._held, self._read_byte, self._said = held, 0, os.memfd_create("said", os.MFD_CLOEXEC)
        self._socket, theirs = socket.socketpair()
        sys.stdout.flush()
        sys.stderr.flush()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of a copy of a process with threads: it has just one
            pid = os.fork()
        if pid == 0:
            self._serve(theirs, view)
        theirs.close()
        self._end = weakref.finalize(self, _end, pid, self._socket, self._said)
        kind, content = self._ask(None, LOAD_LIMIT_S)
        if kind == NO_WALL:
            raise MachineError(
                f"{self._where}: {self._name} is a function of the scenario's, but there is no wall to keep it from "
                f"your files ({content.decode(errors='replace')}); allow user namespaces (sysctl "
                "kernel.apparmor_restrict_unprivileged_userns=0), or --trust a scenario that is as good as your own "
                "programs"
            )

    def _ask(self, frame: bytes | None, limit_s: float) -> tuple[bytes, bytes]:
        """Send a question, if there is one, and return the answer: of which kind, and its content."""
        deadline_s = time.monotonic() + limit_s
        try:
            self._socket.settimeout(limit_s)
            if frame is not None:
                self._socket.sendall(_LENGTH.pack(len(frame)) + frame)
            (length,) = _LENGTH.unpack(_received(self._socket, _LENGTH.size, deadline_s))
            answer = _received(self._socket, length, deadline_s) if 0 < length <= ANSWER_BYTE else b"?"
        except TimeoutError:
            self._end()
            raise self._error(f"did not return within {timebase.LIMIT_S:.0f} s of computing") from None
        except (EOFError, ConnectionError):
            raise self._error("ended its process") from None
        finally:
            self._show()
        kind, content = answer[:1], answer[1:]
        if kind == ERROR:
            raise ScenarioError(content.decode(errors="replace"))
        return kind, content

    def _error(self, what: str) -> ScenarioError:
        return ScenarioError(f"{self._where}: {self._name} {what}, but it must return; mend the function")

    def _show(self) -> None:
        """Pass on what it has printed; nothing that would steer a terminal."""
        with suppress(OSError):
            printed = os.pread(self._said, PRINTED_BYTE, self._read_byte)
            self._read_byte += len(printed)
            text = printed.decode(errors="replace")
            sys.stderr.write("".join(sign for sign in text if sign.isprintable() or sign in "\n\t"))

    def _serve(self, ours: socket.socket, view: sandbox.View) -> NoReturn:
        """In the copy: go behind the wall, load the function, and answer until nobody asks any more."""
        try:
            self._go_behind(ours, view)
            function = user_functions.user_function(self._name, self._where, self._arguments)
            _send(ours, READY, b"")
            while True:
                (length,) = _LENGTH.unpack(_received(ours, _LENGTH.size))
                content = io.BytesIO(_received(ours, length))
                sent, held = content.read(self._arguments), iter(self._held)
                arguments = [np.load(content, allow_pickle=False) if is_sent else next(held) for is_sent in sent]
                plain = [one.item() if isinstance(one, np.ndarray) and one.ndim == 0 else one for one in arguments]
                found, answer = function(*plain), io.BytesIO()
                try:
                    np.save(answer, np.asarray(found), allow_pickle=False)
                except ValueError:
                    raise self._error(f"returned a {type(found).__name__} that is no array of numbers") from None
                _send(ours, ARRAY, answer.getvalue())
        except EOFError:
            os._exit(0)
        except IslEmuError as error:
            with suppress(OSError):
                _send(ours, ERROR, str(error).encode(errors="replace"))
        except BaseException as error:
            with suppress(OSError):
                _send(ours, ERROR, str(self._error(f"failed: {error!r}")).encode(errors="replace"))
        finally:
            os._exit(1)

    def _go_behind(self, ours: socket.socket, view: sandbox.View) -> None:
        """Keep nothing of this process but its memory: no terminal, no open files, no rights."""
        ctypes.CDLL(None).prctl(sandbox.PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(self._said, 1)
        os.dup2(self._said, 2)
        sys.stdout = sys.stderr = os.fdopen(1, "w", buffering=1, closefd=False)
        for name in [name for name in os.environ if name not in ("PATH", "LANG", "HOME", "TZ")]:
            del os.environ[name]
        resource.setrlimit(resource.RLIMIT_FSIZE, (PRINTED_BYTE, PRINTED_BYTE))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        held_byte = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (held_byte + MEMORY_BYTE,) * 2)
        Path("/proc/self/oom_score_adj").write_text("1000")
        try:
            lent = sandbox.enter(view, waiting_keep_files=False)
            os.closerange(3, ours.fileno())  # not before: Arrow ends a copy of a process whose files were closed
            os.closerange(ours.fileno() + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
            sandbox.drop_rights(lent, alone=True)
        except OSError as error:
            _send(ours, NO_WALL, str(error).encode())
            os._exit(1)


def _same(some: tuple[Any, ...], others: tuple[Any, ...]) -> bool:
    return len(some) == len(others) and all(
        one is other or (type(one) is tuple and one == other) for one, other in zip(some, others, strict=True)
    )


def _send(ours: socket.socket, kind: bytes, content: bytes) -> None:
    ours.sendall(_LENGTH.pack(1 + len(content)) + kind + content)


def _received(ours: socket.socket, length: int, deadline_s: float | None = None) -> bytes:
    """So many bytes; EOFError if there will not be as many, TimeoutError if they are not there in time."""
    parts, left = [], length
    while left:
        if deadline_s is not None:
            ours.settimeout(max(deadline_s - time.monotonic(), 1e-3))
        part = ours.recv(min(left, 1 << 20))
        if not part:
            raise EOFError
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _end(pid: int, ours: socket.socket, said: int) -> None:
    """End the copy; all that it has started ends with it."""
    ours.close()
    os.close(said)
    with suppress(ProcessLookupError, ChildProcessError):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _load(name: str, where: str, arguments: int) -> Any:
    own = trusted or inside_guest()
    return (user_functions.user_function if own else WalledFunction)(name, where, arguments)


trusted = False  # whether such functions are called in this process


@contextmanager
def trusting(all_of_it: bool) -> Iterator[None]:
    """While the block runs, call a scenario's functions in this process if it is as good as the user's own."""
    global trusted  # noqa: PLW0603  of the whole process, as its command line is
    before, trusted = trusted, all_of_it
    try:
        yield
    finally:
        trusted = before


user_functions.load = _load  # whoever imports this module plans behind the wall
