"""Talking to a live run from a second terminal, also when it lives in a guest kernel.

A guest shares no socket with the machine, but both see the run folder. So a request is a file in ``journal/control``
(in that of the guest that has the node, where several share the run), and its answer grows in another beside it:

    ID.request   JSON: {"verb": ..., and what the verb needs}
    ID.output    what the answer prints, as it comes
    ID.errors    what it prints as errors
    ID.inputN    the Nth piece of the asking side's standard input, removed when it was taken; an empty one is its end
    ID.status    the exit status; written last
    ID.cancel    made by the asking side when nobody waits any more

It is long because both sides of this protocol stand in it, asking and answering.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import secrets
import stat
import tarfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path, PurePosixPath
from typing import IO, Any, BinaryIO

from isl_emu.errors import IslEmuError, MachineError
from isl_emu.files import write_whole
from isl_emu.machine.calendar_control import calendar_control, ring, rings
from isl_emu.machine.guest import guest_folder
from isl_emu.runs.directory import RunDirectory, registered_runs
from isl_emu.runs.endpoints import FILE as ENDPOINTS
from isl_emu.runs.endpoints import read_endpoints
from isl_emu.runs.folder import RunFolder
from isl_emu.runs.portion import FILE as CUT
from isl_emu.runs.portion import Portion, journals_here
from isl_emu.timebase import Clock, MonotonicClock

LOOK_INTERVAL_NS = 100_000_000
PIECE_BYTE = 1 << 20  # of input and output at once
PIECES_AHEAD = 8
FOLDER = "control"
POINTER = "results"  # in a run's directory: where its run folder is
TURN = "turn"  # there, too: locked by who asks all guests of a run


@dataclass(frozen=True)
class Enquiry:
    """A request and the files of its answer."""

    path: Path  # without a suffix

    @property
    def request(self) -> Path:
        """What is asked."""
        return self.path.with_suffix(".request")

    @property
    def output(self) -> Path:
        """What the answer prints."""
        return self.path.with_suffix(".output")

    @property
    def errors(self) -> Path:
        """What the answer prints as errors."""
        return self.path.with_suffix(".errors")

    def input(self, number: int) -> Path:
        """A piece of what is given to the answer to read."""
        return self.path.with_suffix(f".input{number}")

    @property
    def status(self) -> Path:
        """The exit status; the answer is complete when it exists."""
        return self.path.with_suffix(".status")

    @property
    def cancel(self) -> Path:
        """Exists when nobody waits any more."""
        return self.path.with_suffix(".cancel")


@dataclass
class Answer:
    """The answering side of one request.

    Args:
        cancelled: whether nobody waits for it any more.
    """

    enquiry: Enquiry
    output: BinaryIO
    errors: BinaryIO
    cancelled: Callable[[], bool]
    pieces_taken: int = 0

    def read(self) -> bytes | None:
        """What the asking side has given next; None if there is nothing yet, empty at its end."""
        path = self.enquiry.input(self.pieces_taken)
        try:
            piece = path.read_bytes()
        except FileNotFoundError:
            return None
        path.unlink()
        self.pieces_taken += 1
        return piece


Handler = Callable[[Mapping[str, Any], Answer], int]
"""Answers one request, and returns the exit status."""


class ControlDesk(threading.Thread):
    """Answers requests while a run is live, each in a thread of its own.

    Args:
        journal: the run's journal folder.
        handlers: by verb.
    """

    def __init__(self, journal: Path, handlers: Mapping[str, Handler]):
        super().__init__(name="control-desk", daemon=True)
        self._folder = journal / FOLDER
        self._folder.mkdir(exist_ok=True)
        self._handlers = handlers
        self._stopped, self._seen, self._looking = threading.Event(), set[Path](), threading.Lock()

    def __enter__(self) -> ControlDesk:
        self.start()
        if calendar_control() is not None:
            threading.Thread(target=self._listen, name="control-bell", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self.join()

    def run(self) -> None:
        while not self._stopped.wait(LOOK_INTERVAL_NS / 1e9):
            self._look()

    def _listen(self) -> None:
        """Look whenever the bell rings: virtual time may stand."""
        for _ in rings():
            self._look()

    def _look(self) -> None:
        with self._looking:
            for path in set(self._folder.glob("*.request")) - self._seen:
                self._seen.add(path)
                threading.Thread(target=self._answer, args=(Enquiry(path.with_suffix("")),), daemon=True).start()

    def _answer(self, enquiry: Enquiry) -> None:
        request = json.loads(enquiry.request.read_text())

        def cancelled() -> bool:
            return enquiry.cancel.exists() or self._stopped.is_set()

        with enquiry.output.open("wb", buffering=0) as output, enquiry.errors.open("wb", buffering=0) as errors:
            try:
                status = self._handlers[request["verb"]](request, Answer(enquiry, output, errors, cancelled))
            except Exception as error:  # whatever it is, somebody waits for an answer
                known = isinstance(error, (IslEmuError, OSError))
                errors.write(f"Error: {error if known else repr(error)}\n".encode())
                status = 1
        write_whole(enquiry.status, str(status))


def announce(run: RunDirectory, folder: Path) -> None:
    """Say where the run folder of a run is, so that `find_live_run` finds it."""
    (run.path / POINTER).write_text(str(folder))


def find_live_run(folder: Path | None) -> tuple[RunDirectory, Path]:
    """The live run with the run folder `folder`, or the only one of the user's own.

    Raises:
        MachineError: there is none, or which one is not clear.
    """
    live = list[tuple[RunDirectory, Path]]()
    for run in registered_runs():
        with suppress(OSError, ValueError):  # it has none yet, or has just ended
            if run.owner_pid is not None:
                live.append((run, Path((run.path / POINTER).read_text())))
    others = [path for run, path in live if not run.is_ours]
    if folder is not None:
        live = [(run, path) for run, path in live if path.resolve() == folder.resolve()]
    else:
        live = [(run, path) for run, path in live if run.is_ours]
    if len(live) == 1:
        return live[0]
    if not live and folder is None and others:
        raise MachineError(
            f"live run: there is none of yours, but one is asked for; name one of other users' ({len(others)}) with "
            "--run FOLDER"
        )
    if not live:
        raise MachineError("live run: there is none, but one is asked for; start one with `isl-emu run`")
    folders = ", ".join(str(path) for _, path in live)
    raise MachineError(f"live run: there are {len(live)} ({folders}), but one is asked for; name it with --run FOLDER")


def ask(
    run: RunDirectory,
    folder: Path,
    request: Mapping[str, Any],
    write: Callable[[bytes], object],
    write_error: Callable[[bytes], object] | None = None,
    read: Callable[[int], bytes] | None = None,
    clock: Clock | None = None,
    *,
    patient: bool = False,
) -> int:
    """Send a request to a live run, pass on what it prints as it comes, and return its exit status.

    Where several guests share the run, the one that has the node is asked, and of a link those that have its ends.
    What changes the run is asked of all of them, where they stand at one instant.

    Args:
        write: takes what it prints; `write_error` what it prints as errors, by default `write`.
        read: gives what the answer is to read, at most so many bytes at once, and none at its end; called in a thread.
        patient: an interrupt tells the answer to end, and what it says then is waited for; another one is an interrupt.

    Raises:
        MachineError: the run does not answer yet, or ended before it answered.
    """
    clock, found = clock or MonotonicClock(), 0
    parts, count = _parts_of(folder, request)
    if request["verb"] in TOGETHER and count > 1:
        return _ask_all(
            [*parts, *sorted(set(range(count)) - {*parts})], run, folder, request, write, write_error, clock
        )
    if request["verb"] == "status" and (journals := _journals_of_guests(folder)):
        from isl_emu.parts.registry import PARTS  # noqa: PLC0415  slow to import, and no other request needs it

        said = bytearray()
        found = _ask_guest(0, run, folder, request, said.extend, write_error, None, clock, patient=patient)
        *lines, last = said.decode().splitlines() or [""]
        counted = [line for part in PARTS for line in part.status(*journals)]
        write("".join(f"{line}\n" for line in [*lines, *counted, last]).encode())
        return found
    for place, part in enumerate(parts):
        what = {**request, "ends_alone": True} if place else request
        status = _ask_guest(part, run, folder, what, write, write_error, read, clock, patient=patient)
        found = found or status
    return found


def _ask_all(
    parts: Sequence[int],
    run: RunDirectory,
    folder: Path,
    request: Mapping[str, Any],
    write: Callable[[bytes], object],
    write_error: Callable[[bytes], object] | None,
    clock: Clock,
) -> int:
    """As `ask`, of all guests of a run, one after another while all of them stand; if one refuses, no more of them.

    Args:
        parts: who is asked first may refuse. Who ends a run is asked last by the first guest, which holds the others.
    """
    verb, said, told = request["verb"], bytearray(), bytearray()

    def ask_one(part: int, what: Mapping[str, Any], take: Callable[[bytes], object]) -> int:
        return _ask_guest(part, run, folder, what, take, write_error, None, clock, patient=False)

    with _turn(run):
        stand = {"verb": "stand", "asked": verb, "at_ns": request.get("at_ns")}
        if status := ask_one(0, stand, said.extend):
            return status
        what, stands = {**request, "stand_ns": int(said)}, True
        try:
            for part in reversed(parts) if verb == "stop" else parts:
                if status := ask_one(part, what, write if part == parts[0] else told.extend):
                    return status
            stands = verb != "stop"
            return 0
        finally:
            if stands:
                ask_one(0, {"verb": "release", "asked": verb}, told.extend)


@contextmanager
def _turn(run: RunDirectory) -> Iterator[None]:
    """Only one at a time has the guests of a run stand.

    Raises:
        MachineError: the run has ended.
    """
    try:
        file = (run.path / TURN).open("a")
    except OSError:
        raise MachineError("live run: it has ended, but one is asked; run it again for longer") from None
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _ask_guest(
    part: int,
    run: RunDirectory,
    folder: Path,
    request: Mapping[str, Any],
    write: Callable[[bytes], object],
    write_error: Callable[[bytes], object] | None,
    read: Callable[[int], bytes] | None,
    clock: Clock,
    *,
    patient: bool,
) -> int:
    """As `ask`, of one guest."""
    name = secrets.token_hex(6)
    with _desk(folder, part) as desk:
        enquiry = Enquiry(desk / name)
        write_whole(enquiry.request, json.dumps(request))
        if read is not None:
            threading.Thread(target=_give, args=(folder, part, name, read, clock), name="input", daemon=True).start()
        ring(guest_folder(run, part))
        passed_on = {enquiry.output: 0, enquiry.errors: 0}
        following = enquiry, run, write, write_error or write, clock, passed_on
        try:
            return _follow(*following)
        except BaseException as error:
            with suppress(OSError):  # the run may be over, and its journal gone
                write_whole(enquiry.cancel, "")
            if patient and isinstance(error, KeyboardInterrupt):
                return _follow(*following)
            raise


TOGETHER = "fault", "set", "restore", "stop"
OF_NODES = {
    "exec": ("node",),
    "push": ("node",),
    "pull": ("node",),
    "link": ("a", "b"),
    **dict.fromkeys(("capture", "fault", "set", "restore"), ("place",)),
}


def _parts_of(folder: Path, request: Mapping[str, Any]) -> tuple[list[int], int]:
    """The guests that are asked, by what has the names of nodes, the first one what is of none; and how many there are.

    Raises:
        MachineError: packets of a link that crosses are asked for by hand.
    """
    if (shared := _shared(folder)) is None:
        return [0], 1
    (nodes, portion), names = shared, list[str]()
    for key in OF_NODES.get(request["verb"], ()):
        names += [request[key]] if isinstance(request[key], str) else request[key]
    parts = list(dict.fromkeys(int(portion.part[nodes.index(name)]) for name in names if name in nodes))
    if request["verb"] == "capture" and len(parts) > 1:
        raise MachineError(
            f"capture: {' - '.join(names)} leads from one guest to another, but by hand one of them captures; name one "
            "of both nodes, or write a [[capture]] of the link into the scenario"
        )
    return parts or [0], portion.count


def _journals_of_guests(folder: Path) -> list[Path]:
    """The journals of guests that share a run; none if there is one guest."""
    shared = _shared(folder)
    return [] if shared is None else journals_here(RunFolder(folder), shared[1])


def _shared(folder: Path) -> tuple[list[str], Portion] | None:
    """The nodes of a run that several guests share, and who has which; None if there is one guest, or none is ready."""
    journal = RunFolder(folder).journal
    if not (folder / CUT).exists() or not (journal / ENDPOINTS).exists():
        return None
    nodes = [*read_endpoints(journal)]
    return nodes, Portion.read(folder, 0, len(nodes))


@contextmanager
def _desk(folder: Path, part: int) -> Iterator[Path]:
    """The folder of requests of a guest of a live run; what is in it may change that, but lead nobody elsewhere.

    Raises:
        MachineError: the run does not answer yet.
    """
    with ExitStack() as closing:
        try:
            at = os.open(folder, os.O_PATH | os.O_DIRECTORY)
            closing.callback(os.close, at)
            for name in (RunFolder(folder, part).journal.name, FOLDER):
                at = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=at)
                closing.callback(os.close, at)
        except OSError:
            raise MachineError(
                f"live run: {folder} does not answer yet, but a net is needed; wait until it emulates"
            ) from None
        yield Path(f"/proc/self/fd/{at}")


def _give(folder: Path, part: int, name: str, read: Callable[[int], bytes], clock: Clock) -> None:
    """Pass on what there is to read, a few pieces ahead of what was taken."""
    with (
        suppress(MachineError, OSError, ValueError),
        _desk(folder, part) as desk,
    ):  # the run may be over, and what we read from
        enquiry = Enquiry(desk / name)
        for number in count():
            while number >= PIECES_AHEAD and enquiry.input(number - PIECES_AHEAD).exists():
                clock.sleep_until_ns(clock.now_ns() + LOOK_INTERVAL_NS // 10)
            piece = read(PIECE_BYTE)
            write_whole(enquiry.input(number), piece)
            if not piece:
                return


def _follow(
    enquiry: Enquiry,
    run: RunDirectory,
    write: Callable[[bytes], object],
    write_error: Callable[[bytes], object],
    clock: Clock,
    passed_on: dict[Path, int],
) -> int:
    while True:
        status = _text(enquiry.status)  # before the output: what came before the status is then complete
        silent = True
        for path, take in ((enquiry.output, write), (enquiry.errors, write_error)):
            while piece := _piece_from(path, passed_on[path]):
                take(piece)
                passed_on[path] += len(piece)
                silent = False
        if status is not None:
            return int(status)
        if run.owner_pid is None or not enquiry.request.exists():
            raise MachineError("live run: it has ended, but an answer was to come; run it again for longer")
        if silent:
            clock.sleep_until_ns(clock.now_ns() + LOOK_INTERVAL_NS)


def copy_to(run: RunDirectory, folder: Path, source: Path, node: str, path: str, say: Callable[[bytes], object]) -> int:
    """Copy a file or folder of this machine to a path in a node of a live run, and return the exit status.

    Raises:
        MachineError: the run ended before it was done.
        OSError: it cannot be read.
    """
    source.lstat()
    reading, writing = os.pipe()
    with ThreadPoolExecutor(1) as executor, os.fdopen(reading, "rb", buffering=0) as archive:

        def write() -> None:
            with os.fdopen(writing, "wb") as target:
                pack(str(source), Path.cwd(), target)

        packing = executor.submit(write)
        request = {"verb": "push", "node": node, "path": path}
        status = ask(run, folder, request, say, read=archive.read)
        archive.close()  # if it was not read to its end
        if (error := packing.exception()) and not isinstance(error, BrokenPipeError):
            raise error
        return status


def copy_from(
    run: RunDirectory, folder: Path, node: str, path: str, target: Path, say: Callable[[bytes], object]
) -> int:
    """Copy a file or folder of a node of a live run to a path of this machine, and return the exit status.

    Raises:
        MachineError: the run ended before it was done.
        OSError: it cannot be written.
    """
    reading, writing = os.pipe()
    with ThreadPoolExecutor(1) as executor:

        def read() -> None:
            with os.fdopen(reading, "rb") as archive:
                unpack(archive, str(target), Path.cwd(), owner=(os.geteuid(), os.getegid()))

        unpacking = executor.submit(read)
        status = 0
        with suppress(BrokenPipeError), os.fdopen(writing, "wb") as archive:  # then the other end tells why
            status = ask(run, folder, {"verb": "pull", "node": node, "path": path}, archive.write, say)
        if status:
            return status
        unpacking.result()
        return status


# Users and groups go by their numbers: a node has other names for them, or a stranger's list.
tarfile.pwd = tarfile.grp = None  # type: ignore[attr-defined]
MOST_LINKS = 40  # that a path follows, as in Linux


def path_inside(root: str, path: Path) -> Path:
    """Where a whole path leads for those whose root folder is `root`: links are followed, and none leads out of it.

    Raises:
        OSError: it leads in circles.
    """
    found, waiting, links = PurePosixPath("/"), [*reversed(path.parts)], 0
    while waiting:
        part = waiting.pop()
        real = Path(f"{root}{found / part}")
        if part in ("/", ".."):
            found = found.parent if part == ".." else PurePosixPath("/")
        elif real.is_symlink():
            links += 1
            if links > MOST_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
            waiting += reversed(PurePosixPath(os.readlink(real)).parts)
        else:
            found /= part
    return Path(f"{root}{found}")


def pack(path: str, base: Path, target: IO[bytes], root: str = "") -> None:
    """Write a file, or a folder with all in it, as a tar archive.

    Args:
        base: what a relative path is below.
        root: the root folder of those who name the path, if it is another than ours.

    Raises:
        OSError: it cannot be read.
    """
    source = (path_inside(root, base / path) if root else base / path).resolve(strict=True)
    with tarfile.open(fileobj=target, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        archive.add(source, arcname=Path(path).name or source.name)


def unpack(source: IO[bytes], path: str, base: Path, root: str = "", owner: tuple[int, int] | None = None) -> None:
    """Write what is in an archive of `pack` to a path; into it, under its own name, if it is a folder, as `cp` does.

    Args:
        base: what a relative path is below.
        root: the root folder of those who name the path, if it is another than ours.
        owner: user and group of all that is written; by default as the archive says.

    Raises:
        OSError: it cannot be written.
    """
    target = path_inside(root, base / path) if root else base / path
    into = target.is_dir()
    if not into and (path.endswith("/") or not target.parent.is_dir()):
        raise NotADirectoryError(f"{path}: there is no such folder, but a file is to be written there; make it first")
    with tarfile.open(fileobj=source, mode="r|") as archive:
        if hasattr(tarfile, "fully_trusted_filter"):  # since Python 3.11.4: the archive is one of our own
            archive.extraction_filter = tarfile.fully_trusted_filter

        def place(name: str) -> str:
            inside = PurePosixPath(name).parts
            return str(target.absolute().joinpath(*(inside if into else inside[1:]))).lstrip("/")

        for member in archive:
            member.name = place(member.name)
            member.uid, member.gid = owner or (member.uid, member.gid)
            if member.islnk():
                member.linkname = place(member.linkname)
            archive.extract(member, "/")


def _text(path: Path) -> str | None:
    try:
        with _opened(path) as file:
            return file.read().decode()
    except OSError:
        return None


def _piece_from(path: Path, offset: int) -> bytes:
    try:
        with _opened(path) as file:
            file.seek(offset)
            return file.read(PIECE_BYTE)
    except OSError:
        return b""


def _opened(path: Path) -> BinaryIO:
    """A file of an answer, to be read; OSError if it is none, or a link or pipe."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"{path}: is no file")
    return os.fdopen(descriptor, "rb")
