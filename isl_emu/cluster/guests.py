"""A run whose guests are on several machines, from the side that asks for it: workers of a Dask cluster boot one each.

The asking side gives each worker what its guest needs of the run folder, and takes back what is written there as it is
written; so a worker that dies takes nothing with it but its last moment. All of that goes through Dask's scheduler, so
workers need not be reached from here, but only by each other.
"""

from __future__ import annotations

import os
import re
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from isl_emu.cluster import worker
from isl_emu.cluster.agent import ABANDONED_AFTER_S, Order
from isl_emu.cluster.connect import connect
from isl_emu.cluster.mirror import Mirror, Piece
from isl_emu.errors import FAILED, INTERRUPTED, IslEmuError, MachineError, ScenarioError
from isl_emu.limits import LIMITS
from isl_emu.live.answers import RESULTS_VARIABLE
from isl_emu.live.control import FOLDER as CONTROL
from isl_emu.machine.console import END_WITHIN_S, listening
from isl_emu.machine.guest import VirtualClock
from isl_emu.runs.folder import RunFolder
from isl_emu.runs.meeting import SAID

LOOK_INTERVAL_S = 0.2
LOST_AFTER_S = ABANDONED_AFTER_S  # without a word of a worker
LAST_WORDS_S = 5.0  # of the others when a worker is lost, for which they may wait in vain; then they are killed
KILLED_WITHIN_S = 10.0
FORGOTTEN_WITHIN_S = 5.0
REQUEST = re.compile(rf"journal[.\d]*(/{CONTROL}(/\w+\.(request|cancel|input\d+))?)?")


@dataclass(frozen=True)
class Workers:
    """Some workers of a cluster, one for each guest.

    Args:
        client: of the cluster.
        addresses: theirs, in the order of the guests.
    """

    client: Any
    addresses: Sequence[str]

    def call(self, part: int, function: Callable[..., Any], *words: Any) -> Any:
        """What a function of `isl_emu.cluster.worker` returns on the worker of a guest.

        Raises:
            MachineError: nothing, since the worker is not there any more, or cannot do it.
        """
        address = self.addresses[part]
        try:
            return self.client.run(function, *words, workers=[address])[address]
        except IslEmuError:
            raise
        except Exception as error:  # Dask's, or the worker's: there are no others to be told apart
            raise MachineError(
                f"worker {address}: {function.__name__} failed ({type(error).__name__}: {error}), but it has a "
                "guest of the run; see the worker's log"
            ) from error

    def check_files(self, paths: Sequence[Path]) -> None:
        """Raise a MachineError if a worker lacks a file or folder that we have."""
        files = [(str(path), path.stat().st_size) for path in paths]
        for part, address in enumerate(self.addresses):
            if lacking := self.call(part, worker.lacks, files):
                raise MachineError(
                    f"{lacking[0]}: is not on the worker {address}, or another file, but programs of its guest "
                    "read it; copy it there, to the same path"
                )


@contextmanager
def workers_of(cluster: str, guests: int) -> Iterator[Workers]:
    """The workers of a cluster for some guests, on as many machines as may be.

    Args:
        cluster: as `isl_emu.cluster.connect.connect` takes it.

    Raises:
        ScenarioError: it has too few.
        MachineError: it cannot be reached, or they cannot boot what we would.
    """
    with connect(cluster) as client:
        own, found = worker.facts(), client.run(worker.facts)
        if len(found) < guests:
            raise ScenarioError(
                f"--cluster: {cluster} has {len(found)} workers, but each boots one of {guests} guests; start more, or "
                "use fewer guests"
            )
        chosen = spread_over_hosts({address: facts.host for address, facts in found.items()})[:guests]
        for address in chosen:
            check_facts(address, found[address], own)
        yield Workers(client, chosen)


def spread_over_hosts(hosts: Mapping[str, str]) -> list[str]:
    """Workers in an order in which those of one machine come as late as may be.

    Args:
        hosts: the machine of each, by its address.
    """
    rank: dict[str, tuple[int, str]] = {}
    on_host: dict[str, int] = {}
    for address in sorted(hosts):
        on_host[hosts[address]] = place = on_host.get(hosts[address], 0) + 1
        rank[address] = place, address
    return sorted(rank, key=lambda address: rank[address])


def check_facts(address: str, found: worker.Facts, own: worker.Facts) -> None:
    """Raise a MachineError if a worker cannot boot a guest, or would boot another than we."""
    if found.problem:
        raise MachineError(
            f"worker {address} ({found.host}): {found.problem}, but each worker boots a guest; call "
            "`isl-emu doctor` there"
        )
    if found.kernel != own.kernel:
        raise MachineError(
            f"worker {address} ({found.host}): its guests' kernel is {found.kernel}, and {own.kernel} here, but a run "
            "has one; build it there with `isl-emu doctor`'s help"
        )


@dataclass
class _Guest:
    """One guest, as far as it has been heard of."""

    part: int
    heard_s: float = field(default_factory=time.monotonic)
    status: int | None = None
    problem: str = ""
    lost: bool = False

    @property
    def ended(self) -> bool:
        return self.status is not None or bool(self.problem)


@dataclass
class _Run:
    workers: Workers
    folder: RunFolder
    parts_meet: bool  # in files of the folder, since they share no calendar
    token: str = field(default_factory=lambda: secrets.token_hex(8))
    interrupts: int = 0
    interrupted: bool = False  # by the user
    unwritten: OSError | None = None
    closed: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def call(self, part: int, function: Callable[..., Any], *words: Any) -> Any:
        return self.workers.call(part, function, f"{self.token}-{part}", *words)

    def interrupt(self, *_: object) -> None:
        """By the user: all guests end; the second time they are killed."""
        self.interrupted = True
        self.interrupts += 1

    def give(self, part: int) -> None:
        """What a guest needs of the run folder, on its worker."""
        own = RunFolder(self.folder.path, part).journal.name

        def wanted(path: str) -> bool:
            first = path.partition("/")[0]
            return not first.startswith("journal") or first == own

        mirror = Mirror(self.folder.path, wanted)
        while pieces := mirror.changes():
            self.call(part, worker.give, pieces)

    def attend(self, guest: _Guest) -> None:
        """Take what comes of a guest until it has ended, and write it down here."""
        own = RunFolder(self.folder.path, guest.part).journal.name

        def wanted(path: str) -> bool:
            where = path.partition("/")[0]
            asked = where == own and REQUEST.fullmatch(path)
            said = self.parts_meet and where != own and SAID.fullmatch(path)
            return bool(asked or said)

        mirror = Mirror(self.folder.path, wanted)
        try:
            while not self.closed.is_set():
                report = self.call(guest.part, worker.take, mirror.changes(), self.interrupts)
                guest.heard_s = time.monotonic()
                with self.lock:
                    if self.closed.is_set():
                        return
                    self.write(mirror, report.pieces)
                    _show(report.said, report.errors)
                if report.status is not None:
                    guest.problem = report.problem or _death(report.status)
                    guest.status = report.status
                    return
                if not report.pieces:
                    self.closed.wait(LOOK_INTERVAL_S)
        except MachineError as error:
            self.lose(guest, str(error.__cause__ or error))

    def write(self, mirror: Mirror, pieces: Sequence[Piece]) -> None:
        """Write down what has come; when the disk is full that ends the run."""
        try:
            mirror.apply(pieces)
        except OSError as error:
            self.unwritten, self.interrupts = self.unwritten or error, max(self.interrupts, 1)

    def watch(self, guests: Sequence[_Guest]) -> None:
        """Lose guests whose workers the scheduler does not know any more, and all when it is gone itself."""
        while not self.closed.wait(LOOK_INTERVAL_S * 5):
            try:
                there, why = self.workers.client.nthreads().keys(), "the scheduler does not know it any more"
            except Exception as error:
                there, why = set[str](), f"its scheduler does not answer, {type(error).__name__}: {error}"
            for guest in guests:
                if self.workers.addresses[guest.part] not in there:
                    self.lose(guest, why)

    def lose(self, guest: _Guest, why: str) -> None:
        """Give up a guest that has not ended."""
        if not guest.ended:
            guest.lost, guest.problem = True, why

    def follow(self, guests: Sequence[_Guest]) -> None:
        """Return when all guests have ended; when one fails the others are interrupted."""
        failed_s = None
        while not all(guest.ended for guest in guests):
            time.sleep(LOOK_INTERVAL_S / 4)
            now_s = time.monotonic()
            for guest in guests:
                if not guest.ended and now_s - guest.heard_s > LOST_AFTER_S:
                    self.lose(guest, f"nothing was heard of it for {LOST_AFTER_S:g} s")
            if not any(guest.problem or guest.status for guest in guests):
                continue
            failed_s = failed_s or now_s
            spare_s = LAST_WORDS_S if any(guest.lost for guest in guests) else END_WITHIN_S
            self.interrupts = max(self.interrupts, 1 if now_s < failed_s + spare_s else 2)
            if now_s > failed_s + spare_s + KILLED_WITHIN_S:
                return


def _sentence(guest: _Guest, address: str) -> str:
    where = f"guest {guest.part} on the worker {address}"
    if guest.lost:
        return f"{where}: the worker is lost ({guest.problem}), but a run needs all of its guests; see the worker's log"
    return f"{where}: {guest.problem}"


def _death(status: int) -> str:
    if status >= 0:
        return ""
    return f"signal {-status} killed its agent, and it with it, but both end with the run; run it again"


def _show(said: bytes, errors: bytes) -> None:
    for data, stream in ((said, sys.stdout), (errors, sys.stderr)):
        with suppress(BrokenPipeError):
            stream.write(data.decode(errors="replace"))
            stream.flush()


def run_on_workers(
    workers: Workers,
    folder: RunFolder,
    words: Sequence[str],
    *,
    clock: VirtualClock | None,
    lookahead_ns: int,
    memory_byte: int,
    readable: Sequence[Path],
    trusted: bool,
) -> list[int]:
    """Boot a guest on each worker, and return the exit statuses of their commands.

    Ctrl-C and SIGTERM go to all of them. Whatever happens, what they have written down until then is in the folder.

    Args:
        folder: of a run that is prepared, for several guests.
        words: options of `isl-emu execute`.
        clock, lookahead_ns, memory_byte, trusted: of `isl_emu.machine.guest.run_in_guests`.
        readable: what programs in the guests read of their machines.

    Raises:
        MachineError: one could not be booted, has died, or was lost.
    """
    run, parts = _Run(workers, folder, clock is None), range(len(workers.addresses))
    guests = [_Guest(part) for part in parts]
    try:
        addresses = [run.call(part, worker.listen) for part in parts]
        for part in parts:
            run.give(part)
        variables = {name: os.environ[name] for limit in LIMITS if (name := limit.variable) in os.environ}
        variables[RESULTS_VARIABLE] = str(folder.path)
        secret = secrets.token_hex(32)
        with listening(run.interrupt) if threading.current_thread() is threading.main_thread() else nullcontext():
            for part in parts:
                order = Order(
                    part, list(words), clock, lookahead_ns, memory_byte, trusted, [*map(str, readable)], addresses,
                    secret, variables,
                )  # fmt: skip
                run.call(part, worker.boot, order)
                guests[part].heard_s = time.monotonic()
                threading.Thread(target=run.attend, args=(guests[part],), daemon=True).start()
            threading.Thread(target=run.watch, args=(guests,), daemon=True).start()
            run.follow(guests)
    finally:
        run.closed.set()
        _forget(run, [part for part in parts if part not in {guest.part for guest in guests if guest.lost}])
    with run.lock:  # what has come is written down
        pass
    if run.unwritten is not None:
        raise run.unwritten
    statuses = [FAILED if guest.problem or guest.status is None else guest.status for guest in guests]
    if run.interrupted and any(statuses):
        return [INTERRUPTED]
    if failed := sorted((guest for guest in guests if guest.problem), key=lambda guest: not guest.lost):
        raise MachineError(_sentence(failed[0], workers.addresses[failed[0].part]))
    return statuses


def _forget(run: _Run, parts: Sequence[int]) -> None:
    """Let nothing be left on any worker that can be reached; on others agents see to it."""

    def forget(part: int) -> None:
        with suppress(Exception):
            run.call(part, worker.forget)

    threads = [threading.Thread(target=forget, args=(part,), daemon=True) for part in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(FORGOTTEN_WITHIN_S)
