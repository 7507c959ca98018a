"""The runs of a sweep on the workers of a Dask cluster, from the side that asks for them.

Each run is a task (`isl_emu.sweeps.worker.perform`). No more are given out than the workers have threads, so none waits
behind another where a worker is free, and what has come to its end is written down at once.
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from isl_emu.cluster.connect import versions
from isl_emu.errors import IslEmuError, MachineError
from isl_emu.files import write_whole
from isl_emu.limits import LIMITS
from isl_emu.progress import Report
from isl_emu.sweeps import worker
from isl_emu.sweeps.worker import Job, Made, Seat

LOOK_INTERVAL_S = 0.5
SCHEDULER_SILENT_S = 10.0
SEATED_WITHIN_S = 900.0  # it may build the guest's kernel
WORKERLESS_S = 300.0
RESULTS_WITHIN_S = 600.0  # from the worker to here
ENDED_WITHIN_S = worker.LAST_WORDS_S + 10.0  # runs that are given up


def check_seats(seats: Mapping[str, Seat], threads: Mapping[str, int]) -> None:
    """Raise a MachineError if workers cannot make runs, or would make them differently or disturb each other's.

    Args:
        seats: of each worker, by its address.
        threads: how many tasks each does at once.
    """
    runs_on: dict[str, int] = {}
    for address, seat in seats.items():
        if seat.problem:
            raise MachineError(
                f"--cluster: worker {address} ({seat.host}) cannot make a run ({seat.problem}), but each worker does; "
                "call `isl-emu doctor` there"
            )
        runs_on[seat.machine] = runs_on.get(seat.machine, 0) + threads.get(address, 1)
    (first, own), *others = seats.items()
    for address, seat in others:
        if seat.clock != own.clock:
            raise MachineError(
                f"--cluster: worker {address} ({seat.host}) has {seat.clock} time ({seat.reason}) and {first} "
                f"({own.host}) {own.clock} time ({own.reason}), but all runs of a sweep have one clock; say which with "
                "--clock, and call `isl-emu doctor` where it cannot be had"
            )
    if own.clock == "real" and (most := max(runs_on.values())) > 1:
        host = next(seat.host for seat in seats.values() if runs_on[seat.machine] == most)
        raise MachineError(
            f"--cluster: {host} would make {most} runs at once in real time ({own.reason}), but there they disturb "
            "each other; give each machine one worker of one thread (`dask worker --nworkers 1 --nthreads 1`)"
        )


def seats_of(client: Any, scenario: str, options: Sequence[str], trusted: bool) -> dict[str, Seat]:
    """Where each worker of a cluster would make a run.

    Args:
        options: of `isl-emu run`, each with its value.
        trusted: it may run the scenario's programs where no wall is.

    Raises:
        MachineError: one does not say.
    """
    named = dict(zip(options[::2], options[1::2], strict=True))
    facts = scenario, named.get("--machine", "auto"), named.get("--clock"), trusted
    asked = {
        address: client.submit(worker.seat, *facts, workers=[address], pure=False) for address in client.nthreads()
    }
    seats = {}
    for address, future in asked.items():
        try:
            seats[address] = future.result(timeout=SEATED_WITHIN_S)
        except Exception as error:  # of Dask's: the worker, or the scheduler, is lost
            raise MachineError(
                f"--cluster: the worker {address} does not say what it has ({type(error).__name__}: {error}), but it "
                "is to make runs; see its log"
            ) from None
    return seats


@contextmanager
def room_below(folder: Path) -> Iterator[Path]:
    """A folder for what is under way, new and empty, that is gone after the block."""
    room = folder / "under-way"
    shutil.rmtree(room, ignore_errors=True)
    room.mkdir(mode=0o700)
    try:
        yield room
    finally:
        shutil.rmtree(room, ignore_errors=True)


def run_all(
    client: Any, scenarios: Mapping[str, str], words: Sequence[str], room: Path, most: int | None, report: Report
) -> Generator[tuple[str, str, Path | None], None, None]:
    """Run scenarios on the workers of a cluster, and give each as it ends.

    When that is left early the tasks are cancelled, and it is waited until the runs have ended.

    Args:
        scenarios: by the names of their runs.
        words: options of `isl-emu run`.
        room: a folder for what is under way.
        most: runs at once; by default one for each thread of the workers.

    Returns:
        The name of each run; and who made it and a folder with its files, or why nobody did and None.

    Raises:
        MachineError: the scheduler has been lost, or has no workers any more.
    """
    token, mark = secrets.token_hex(8), secrets.token_hex(16)
    write_whole(room / token, mark)
    limits = {limit.variable: os.environ[limit.variable] for limit in LIMITS if limit.variable in os.environ}
    jobs = deque(
        Job(name, scenario, list(words), token, str(room), mark, str(Path.cwd()), limits, versions())
        for name, scenario in scenarios.items()
    )
    live, done, workerless_s = dict[Any, str](), 0, None
    try:
        while jobs or live:
            threads, now_s = _threads(client), time.monotonic()
            workerless_s = None if threads else workerless_s or now_s
            if workerless_s is not None and now_s - workerless_s > WORKERLESS_S:
                raise MachineError(
                    f"--cluster: {client.scheduler.address} has had no workers for {WORKERLESS_S:g} s, but they make "
                    "the runs; start some, and go on with `isl-emu run --resume`"
                )
            while jobs and len(live) < min(most or threads, threads):
                job = jobs.popleft()
                live[client.submit(worker.perform, job, key=f"{job.name}-{token}", pure=False)] = job.name
            report(done / len(scenarios), f"{done} of {len(scenarios)} done, now {', '.join(live.values())}")
            for future, name in list(live.items()):
                if future.done():
                    del live[future]
                    done += 1
                    yield name, *_taken(client, future, room)
            time.sleep(LOOK_INTERVAL_S)
    finally:
        _give_up(client, token, list(live))


def _threads(client: Any) -> int:
    """How many runs the workers make at once.

    Raises:
        MachineError: the scheduler does not say.
    """
    try:
        return sum(client.nthreads(callback_timeout=SCHEDULER_SILENT_S).values())
    except Exception:  # of Dask's, of which there are many
        raise _lost(client) from None


def _lost(client: Any) -> MachineError:
    return MachineError(
        f"--cluster: the scheduler {client.scheduler.address} does not answer any more, but the runs are given out by "
        "it; finished runs are kept: start it again, and go on with `isl-emu run --resume`"
    )


def _taken(client: Any, future: Any, room: Path) -> tuple[str, Path | None]:
    """Who made a run and where its files are here; or why nobody did, and None."""
    if future.status in ("cancelled", "lost"):
        raise _lost(client)
    try:
        made: Made = future.result(timeout=RESULTS_WITHIN_S)
    except Exception as error:  # of Dask's, or of the worker's
        return _sentence(error), None
    folder = room / (made.folder or secrets.token_hex(8))
    if not made.folder:
        folder.mkdir(mode=0o700)
        worker.unpack(made.packed, folder)
    return made.worker, folder


def _sentence(error: Exception) -> str:
    if isinstance(error, IslEmuError):
        return str(error)
    died = getattr(error, "allowed_failures", None)  # Dask's KilledWorker
    if died is not None:
        last = getattr(getattr(error, "last_worker", None), "address", "unknown")
        return (
            f"run: {died + 1} workers died while they made it, the last was {last}, but a run is repeated no more "
            "often than the scheduler's `distributed.scheduler.allowed-failures`; see the workers' logs"
        )
    return f"run: its worker stopped at {type(error).__name__} ({error}), but it makes runs; see the worker's log"


def _give_up(client: Any, token: str, futures: Sequence[Any]) -> None:
    """Cancel tasks, and wait until the workers have ended their runs."""
    if not futures:
        return
    until_s = time.monotonic() + ENDED_WITHIN_S
    with suppress(Exception):  # what cannot be reached ends its runs by itself
        client.cancel(futures, force=True)
        while time.monotonic() < until_s:
            live = client.run(worker.still_live, token, on_error="return")
            if not any(count for count in live.values() if isinstance(count, int)):
                break
            time.sleep(LOOK_INTERVAL_S)
