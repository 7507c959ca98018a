"""What is called in a Dask worker, by `Client.run`, of a run whose guests are on several machines: see `guests`.

A worker has one agent for each run (`isl_emu.cluster.agent`), which ends with the worker. All else that is asked of it
is to pass on: what the asking side gives, and what the run writes down.
"""

from __future__ import annotations

import os
import platform
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import isl_emu
from isl_emu.cluster.agent import PROBLEM, RESULTS, Order
from isl_emu.cluster.mirror import Mirror, Piece
from isl_emu.cluster.relay import Address
from isl_emu.errors import MachineError
from isl_emu.machine.calendar_control import ring
from isl_emu.machine.guest import clean_guest, guest_folder
from isl_emu.machine.uml import find_uml
from isl_emu.runs.directory import RUN_ID_BYTES, RunDirectory, runs_root

_PACKAGE = Path(isl_emu.__file__).parent
SAID, ERRORS = "said", "errors"  # what the agent writes to its standard streams


class Facts(NamedTuple):
    """What a machine can boot.

    Args:
        kernel: with which source and recipe it was built, of a guest in exact time; empty if there is none.
        problem: why there is none.
        host: the machine's name.
    """

    kernel: str
    problem: str
    host: str


class Report(NamedTuple):
    """What has come of a guest since the report before.

    Args:
        pieces: of its run folder.
        said, errors: what it wrote to its standard streams.
        status: the exit status of its command, once everything has been reported.
        problem: why there is none, if it ended without.
    """

    pieces: list[Piece]
    said: bytes
    errors: bytes
    status: int | None
    problem: str


def facts() -> Facts:
    """What this machine can boot."""
    try:
        kernel = find_uml()
    except MachineError as error:
        return Facts("", str(error), platform.node())
    if not kernel.exact:
        return Facts("", "the kernel that has exact time is not built", platform.node())
    return Facts(Path(kernel.program).parent.name, "", platform.node())


def lacks(files: Iterable[tuple[str, int]]) -> list[str]:
    """Those of some files that this machine has not, or not of their size in bytes.

    Args:
        files: their paths and sizes; of folders the size is not looked at.
    """
    return [path for path, byte in files if not _has(Path(path), byte)]


def _has(path: Path, byte: int) -> bool:
    try:
        return path.is_dir() or path.stat().st_size == byte
    except OSError:
        return False


@dataclass
class Attended:
    """An agent of ours and its files."""

    base: Path
    mirror: Mirror
    listener: socket.socket
    run: RunDirectory
    number: int = 0
    agent: subprocess.Popen[bytes] | None = None
    interrupts: int = 0
    told_byte: dict[str, int] | None = None

    def more_of(self, name: str) -> bytes:
        """What has been written to a stream since it was asked."""
        told = self.told_byte = self.told_byte or {}
        with (self.base / name).open("rb") as file:
            file.seek(told.get(name, 0))
            data = file.read()
        told[name] = told.get(name, 0) + len(data)
        return data


_ATTENDED: dict[str, Attended] = {}  # by the token of the run and the part


def listen(token: str, dask_worker: Any) -> Address:
    """Make ready for a guest: a folder, and a socket where the others' agents find ours; return its address.

    It listens at the address by which the worker is known to the scheduler.
    """
    host = urlsplit(dask_worker.address).hostname
    family = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0][0]
    listener = socket.create_server((host, 0), family=family)
    base = Path(tempfile.mkdtemp(prefix="isl-emu-", dir=dask_worker.local_directory))
    (base / RESULTS).mkdir(mode=0o700)
    run = RunDirectory(run_id := secrets.token_hex(RUN_ID_BYTES), runs_root() / run_id)
    _ATTENDED[token] = Attended(base, Mirror(base / RESULTS), listener, run)
    return host, listener.getsockname()[1]


def give(token: str, pieces: Sequence[Piece]) -> None:
    """Take in a part of the run folder."""
    _ATTENDED[token].mirror.apply(pieces)


def boot(token: str, order: Order) -> None:
    """Start the agent."""
    one = _ATTENDED[token]
    one.number = order.part
    with (one.base / SAID).open("wb") as said, (one.base / ERRORS).open("wb") as errors:
        one.agent = subprocess.Popen(
            [sys.executable, "-m", "isl_emu.cluster.agent", str(one.listener.fileno()), str(one.base)],
            stdin=subprocess.PIPE,
            stdout=said,
            stderr=errors,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(_PACKAGE.parent), *_further_paths()])},
            pass_fds=[one.listener.fileno()],
            start_new_session=True,
        )
    one.listener.close()
    assert one.agent.stdin is not None
    one.agent.stdin.write(replace(order, run_id=one.run.run_id).to_json().encode())
    one.agent.stdin.flush()


def _further_paths() -> list[str]:
    return [path for path in [os.environ.get("PYTHONPATH")] if path]


def take(token: str, given: Sequence[Piece], interrupts: int) -> Report:
    """Report what has come of a guest, which whoever asks still wants.

    Args:
        given: what is asked of the run from a second terminal.
        interrupts: how often the run was interrupted.
    """
    one = _ATTENDED[token]
    assert one.agent is not None and one.agent.stdin is not None
    if given:
        one.mirror.apply(given)
        ring(guest_folder(one.run, one.number))
    with suppress(OSError):  # it has ended
        one.agent.stdin.write(b".")
        one.agent.stdin.flush()
    while one.interrupts < interrupts:
        one.agent.send_signal(signal.SIGINT)
        one.interrupts += 1
    status = one.agent.poll()  # before we look: afterwards nothing comes
    pieces = one.mirror.changes()
    said, errors = one.more_of(SAID), one.more_of(ERRORS)
    try:
        problem = (one.base / PROBLEM).read_text()
    except OSError:
        problem = ""
    return Report(pieces, said, errors, None if pieces else status, problem)


def forget(token: str) -> None:
    """End what is left of an agent and its guest, and remove their files; may be repeated."""
    if (one := _ATTENDED.pop(token, None)) is None:
        return
    one.listener.close()
    if one.agent is not None:
        one.agent.kill()
        one.agent.wait()
        clean_guest(one.run)
    for folder in (one.run.path, one.base):
        shutil.rmtree(folder, ignore_errors=True)
