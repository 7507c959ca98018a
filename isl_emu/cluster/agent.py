"""The agent: on a worker it boots one of the guests that share a run, joined to the others by relays.

Run as ``python -m isl_emu.cluster.agent LISTENER FOLDER`` by the worker (`isl_emu.cluster.worker`); LISTENER is a
listening socket that it inherits, and FOLDER its own. Standard input begins with a line, its `Order`, and then has a
byte as often as whoever wants the run has been heard of. When none comes for `ABANDONED_AFTER_S`, or its end does, the
run is given up: the guest is ended, and all files of the run that are here are removed. Why there is no exit status of
the guest's command goes to the file `problem`.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from isl_emu.cluster.relay import TRUNK, Address, Streams, meet
from isl_emu.errors import FAILED, INTERRUPTED, IslEmuError
from isl_emu.files import write_whole
from isl_emu.machine.guest import (
    SOCKET,
    Joint,
    VirtualClock,
    calendar_folder,
    calendar_socket,
    guest_folder,
    open_calendar,
    run_in_guests,
    short_path,
)
from isl_emu.machine.load import watched_guest
from isl_emu.runs.directory import RunDirectory, create_run_directory
from isl_emu.runs.folder import RunFolder
from isl_emu.runs.journal import OUTSIDE_JOURNAL, Journal
from isl_emu.runs.process import module_command, started_as

ABANDONED_AFTER_S = 10.0
LAST_WORDS_S = 2.0  # for a guest that is given up, before it is killed
PROBLEM, RESULTS = "problem", "results"  # in its folder


@dataclass(frozen=True)
class Order:
    """What an agent is to do.

    Args:
        part: the number of its guest.
        words: options of `isl-emu execute`.
        clock: how virtual time begins; None in real time.
        lookahead_ns, memory_byte, trusted: of `isl_emu.machine.guest.run_in_guests`.
        readable: what the guest's programs read of this machine.
        addresses: where the agent of each part listens.
        secret: by which they know each other, hexadecimal.
        environment: variables for the command.
        run_id: of the run on the worker's machine, which the worker chooses.
    """

    part: int
    words: Sequence[str]
    clock: VirtualClock | None
    lookahead_ns: int
    memory_byte: int
    trusted: bool
    readable: Sequence[str]
    addresses: Sequence[Address]
    secret: str
    environment: dict[str, str]
    run_id: str = ""

    def to_json(self) -> str:
        """As one line."""
        return json.dumps(asdict(self)) + "\n"

    @classmethod
    def from_json(cls, line: str) -> Order:
        """What `to_json` wrote."""
        record = json.loads(line)
        addresses = [(host, port) for host, port in record.pop("addresses")]
        clock = record.pop("clock")
        return cls(clock=None if clock is None else VirtualClock(**clock), addresses=addresses, **record)


def boot(order: Order, listener: socket.socket, base: Path) -> int:
    """Boot the guest and return the exit status of its command.

    Raises:
        MachineError: it cannot be joined to the others or booted, or dies.
    """
    folder = RunFolder(base / RESULTS, order.part)
    secret, exact = bytes.fromhex(order.secret), order.clock is not None
    streams = meet(order.part, listener, order.addresses, secret, calendar=exact)
    listener.close()
    run = create_run_directory(order.run_id)
    try:
        with ExitStack() as beside, joined(run, order, streams) as joint:
            if not exact:
                outside = beside.enter_context(Journal(folder.journal / f"{OUTSIDE_JOURNAL}.jsonl"))
                beside.enter_context(watched_guest(guest_folder(run, order.part), outside.append, order.part))
            command = module_command("isl_emu", "execute", str(folder.path), *order.words, "--part", str(order.part))
            (status,) = run_in_guests(
                [command],
                run=run,
                writable=[folder.path],
                readable=[*map(Path, order.readable)],
                memory_byte=[order.memory_byte],
                environment=order.environment,
                clock=order.clock,
                lookahead_ns=order.lookahead_ns,
                who=partial(started_as, folder.journal),
                trusted=order.trusted,
                joint=joint,
            )
            if status in (0, INTERRUPTED) and joint.calendar is not None:
                joint.calendar.wait()  # others may take longer to end, and need time until then
        return status
    finally:
        shutil.rmtree(run.path, ignore_errors=True)


@contextmanager
def joined(run: RunDirectory, order: Order, streams: Streams) -> Iterator[Joint]:
    """What joins a guest to the others while the block runs, over the connections that lead to them."""
    with ExitStack() as closing:
        trunks, pairs, calendar = dict[int, socket.socket](), list[tuple[socket.socket, socket.socket, str]](), None
        if order.part == 0 and order.clock is not None:
            calendar = closing.enter_context(open_calendar(run, order.clock, len(order.addresses)))
        for (kind, other), far in streams.items():
            closing.enter_context(far)
            if kind == TRUNK:
                trunks[other], near = socket.socketpair()
                pairs.append((near, far, ""))
            elif calendar is not None:
                near = socket.socket(socket.AF_UNIX)
                with short_path(calendar_folder(run)) as short:
                    near.connect(f"{short}/{SOCKET}")
                pairs.append((near, far, ""))
            else:
                near = closing.enter_context(calendar_socket(run))
                pairs.append((near, far, ":calendar"))
            closing.enter_context(near)
        closing.enter_context(_relay(pairs))
        for near, far, _ in pairs:  # a stream ends when its only owners do
            near.close()
            far.close()
        yield Joint(order.part, trunks, calendar)


@contextmanager
def _relay(pairs: Sequence[tuple[socket.socket, socket.socket, str]]) -> Iterator[None]:
    words = [f"{near.fileno()}:{far.fileno()}{kind}" for near, far, kind in pairs]
    process = subprocess.Popen(
        [sys.executable, "-m", "isl_emu.cluster.relay", str(os.getpid()), *words],
        stdin=subprocess.DEVNULL,
        pass_fds=[end.fileno() for near, far, _ in pairs for end in (near, far)],
        start_new_session=True,
    )
    try:
        yield
    finally:
        process.kill()
        process.wait()


class Lease(threading.Thread):
    """Ends this process, and removes its folder, when whoever wants the run is not heard of any more.

    Args:
        stream: has a byte as often as he is.
        base: the agent's folder.
    """

    def __init__(self, stream: int, base: Path):
        super().__init__(name="lease", daemon=True)
        self._stream, self._base, self.given_up = stream, base, False

    def run(self) -> None:
        while select.select([self._stream], [], [], ABANDONED_AFTER_S)[0] and os.read(self._stream, 4096):
            pass
        self.given_up = True
        for _ in range(2):  # the guest is asked first, and killed the second time
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(LAST_WORDS_S)
        shutil.rmtree(self._base, ignore_errors=True)
        os._exit(FAILED)  # what is left of the guest ends with us


def main(arguments: Sequence[str]) -> int:
    """Boot the guest of the order on standard input."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a worker may have ignored it
    listener, base = int(arguments[0]), Path(arguments[1])
    order = Order.from_json(sys.stdin.readline())
    lease = Lease(sys.stdin.fileno(), base)
    lease.start()
    try:
        with socket.socket(fileno=listener) as listening:
            status = boot(order, listening, base)
    except KeyboardInterrupt:
        status = INTERRUPTED
    except Exception as error:
        told = str(error) if isinstance(error, IslEmuError) else f"agent: {error!r}, but it boots a guest"
        write_whole(base / PROBLEM, told)
        status = FAILED
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if lease.given_up:
        shutil.rmtree(base, ignore_errors=True)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
