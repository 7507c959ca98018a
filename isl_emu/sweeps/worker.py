"""What a worker of a cluster does for a sweep: a run is one of its tasks, and a process of its own there."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import isl_emu
from isl_emu.cluster.connect import check_versions, versions
from isl_emu.errors import IslEmuError, MachineError
from isl_emu.files import write_whole
from isl_emu.runs.process import end, start_module

LOOK_INTERVAL_S = 0.2
LAST_WORDS_S = 20.0  # for a run that nobody wants any more, before it is killed
ENDING = ("closing", "closed", "failed")  # states of a worker
SCENARIO, LOG, RESULTS = "scenario.toml", "log", "results"  # of a run, below the folder where it is under way


class Job(NamedTuple):
    """A run that a worker is to make.

    Args:
        name: of the run.
        scenario: as TOML.
        words: options of `isl-emu run`.
        token: of the sweep.
        room: where the asking side takes up what is under way; on its own machine, and on others if they share it.
        mark: what a file of the token's name holds there, which tells whether they do.
        home: where the sweep was called.
        limits: environment variables that say the most of something.
        versions: of the asking side.
    """

    name: str
    scenario: str
    words: Sequence[str]
    token: str
    room: str
    mark: str
    home: str
    limits: Mapping[str, str]
    versions: dict[str, str]


class Made(NamedTuple):
    """What came of a job.

    Args:
        worker: who made it, for readers.
        folder: of its files below the room; empty if that is not shared.
        packed: these files, as a zip archive, if it is not.
    """

    worker: str
    folder: str
    packed: bytes


class Seat(NamedTuple):
    """Where a worker would make a run.

    Args:
        machine: the same for all workers of one kernel.
        host: its name.
        clock: exact or real.
        reason: why it is that clock.
        problem: why it could not make any, or nothing.
    """

    machine: str
    host: str
    clock: str
    reason: str
    problem: str


_LIVE: Counter[str] = Counter()  # jobs that go on here, by their tokens


def seat(scenario: str, machine: str, clock: str | None, trusted: bool) -> Seat:
    """Where this worker would make a run; the kernel that has exact time is built first if it is needed."""
    # slow to import, and a worker that makes runs needs none of them
    from isl_emu.experiment import place_for  # noqa: PLC0415
    from isl_emu.progress import Screen, Steps  # noqa: PLC0415
    from isl_emu.runs.wishes import Trust, Wishes  # noqa: PLC0415
    from isl_emu.scenario.parse import parse_scenario  # noqa: PLC0415

    boot, host = Path("/proc/sys/kernel/random/boot_id").read_text().strip(), platform.node()
    try:
        wishes = Wishes(trust=Trust(all=trusted))
        place = place_for(parse_scenario(scenario, "sweep"), machine, clock, wishes, Steps(Screen(quiet=True)))
    except IslEmuError as error:
        return Seat(boot, host, "", "", str(error))
    return Seat(boot, host, place.clock, place.reason, "")


def still_live(token: str) -> int:
    """How many runs of a sweep go on in this worker."""
    return _LIVE[token]


def perform(job: Job) -> Made:
    """Make a run; called as a task in a worker, and ends the run when nobody wants that any more.

    Raises:
        MachineError: this worker has something else than the asking side.
    """
    from distributed import get_worker  # noqa: PLC0415  of an extra

    worker = get_worker()
    check_versions({worker.address: versions()}, job.versions)
    return make(job, f"{worker.address} ({platform.node()})", Path(worker.local_directory), _wanted(worker))


def _wanted(worker: Any) -> Callable[[], bool]:
    """Whether a task still is: Dask ends none that has begun, but a worker forgets one that is cancelled."""
    key = worker.get_current_task()

    def wanted() -> bool:
        task = worker.state.tasks.get(key)
        return worker.status.name not in ENDING and task is not None and task.state in ("executing", "long-running")

    return wanted


def make(job: Job, worker: str, local: Path, wanted: Callable[[], bool]) -> Made:
    """Make a run in a process of its own.

    Args:
        worker: its name, for readers.
        local: a folder of this machine's for what is under way, if that of the asking side is not shared.
        wanted: whether anybody still wants it.

    Raises:
        MachineError: nobody did.
    """
    _LIVE[job.token] += 1
    try:
        shared = is_shared(job)
        base = Path(tempfile.mkdtemp(prefix=f"{job.name}-", dir=job.room if shared else local))
        try:
            _run(job, base, Path(job.home) if shared else None, wanted)
            return Made(worker, base.name if shared else "", b"" if shared else pack(base))
        except BaseException:
            shutil.rmtree(base, ignore_errors=True)
            raise
        finally:
            if not shared:
                shutil.rmtree(base, ignore_errors=True)
    finally:
        _LIVE[job.token] -= 1


def is_shared(job: Job) -> bool:
    """Whether what is written where the asking side takes it up gets there, and is the same user's."""
    room = Path(job.room)
    with suppress(OSError, UnicodeDecodeError):
        ours = room.stat().st_uid == os.geteuid() and os.access(room, os.W_OK | os.X_OK)
        return ours and (room / job.token).read_text() == job.mark
    return False


def _run(job: Job, base: Path, home: Path | None, wanted: Callable[[], bool]) -> None:
    write_whole(base / SCENARIO, job.scenario)
    with tempfile.TemporaryDirectory(prefix="isl-emu-") as elsewhere, (base / LOG).open("wb") as log:
        paths = [str(Path(isl_emu.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
        process = start_module(
            ["isl_emu", "run", str(base / SCENARIO), "--out", str(base / RESULTS), *job.words],
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=home if home is not None and home.is_dir() else elsewhere,
            env={**os.environ, **job.limits, "PYTHONPATH": os.pathsep.join(paths)},
        )
        try:
            while process.poll() is None:
                if not wanted():
                    raise MachineError(f"{job.name}: goes on, but nobody wants it any more; begin it again")
                time.sleep(LOOK_INTERVAL_S)
        finally:
            end([process], LAST_WORDS_S)


def pack(base: Path) -> bytes:
    """Files and folders as a zip archive; links and the like, which programs of a run may leave, are left out."""
    packed = BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1, strict_timestamps=False) as archive:
        for where, folders, names in os.walk(base):
            for name in (*folders, *names):
                path = Path(where, name)
                if not path.is_symlink() and (path.is_file() or path.is_dir()):
                    archive.write(path, path.relative_to(base))
    return packed.getvalue()


def unpack(packed: bytes, base: Path) -> None:
    """Write what `pack` has packed into a folder, and nothing outside of it."""
    with zipfile.ZipFile(BytesIO(packed)) as archive:
        archive.extractall(base)
