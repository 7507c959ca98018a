"""Talking to a live run from a second terminal, also when it lives in a guest kernel.

A guest shares no socket with the machine, but both see the run folder. So a request is a file in ``journal/control``,
and its answer grows in another beside it:

    ID.request   JSON: {"verb": ..., and what the verb needs}
    ID.output    what the answer prints, as it comes
    ID.status    the exit status; written last
    ID.cancel    made by the asking side when nobody waits any more
"""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from isl_emu.errors import IslEmuError, MachineError
from isl_emu.files import write_whole
from isl_emu.machine.calendar_control import calendar_control, ring, rings
from isl_emu.runs.directory import RunDirectory, registered_runs
from isl_emu.timebase import Clock, MonotonicClock

LOOK_INTERVAL_NS = 100_000_000
FOLDER = "control"
POINTER = "results"  # in a run's directory: where its run folder is


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
    def status(self) -> Path:
        """The exit status; the answer is complete when it exists."""
        return self.path.with_suffix(".status")

    @property
    def cancel(self) -> Path:
        """Exists when nobody waits any more."""
        return self.path.with_suffix(".cancel")


Handler = Callable[[Mapping[str, Any], BinaryIO, Callable[[], bool]], int]
"""Answers one request: (request, output, whether it was cancelled) -> exit status."""


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

        with enquiry.output.open("wb", buffering=0) as output:
            try:
                status = self._handlers[request["verb"]](request, output, cancelled)
            except (IslEmuError, OSError) as error:
                output.write(f"Error: {error}\n".encode())
                status = 1
        write_whole(enquiry.status, str(status))


def announce(run: RunDirectory, folder: Path) -> None:
    """Say where the run folder of a run is, so that `find_live_run` finds it."""
    (run.path / POINTER).write_text(str(folder))


def find_live_run(folder: Path | None) -> tuple[RunDirectory, Path]:
    """The live run with the run folder `folder`, or the only one there is.

    Raises:
        MachineError: there is none, or which one is not clear.
    """
    live = [(run, Path((run.path / POINTER).read_text())) for run in registered_runs() if _is_live(run)]
    if folder is not None:
        live = [(run, path) for run, path in live if path.resolve() == folder.resolve()]
    if len(live) == 1:
        return live[0]
    if not live:
        raise MachineError("live run: there is none, but one is asked for; start one with `isl-emu run`")
    folders = ", ".join(str(path) for _, path in live)
    raise MachineError(f"live run: there are {len(live)} ({folders}), but one is asked for; name it with --run FOLDER")


def ask(
    run: RunDirectory,
    folder: Path,
    request: Mapping[str, Any],
    write: Callable[[bytes], object],
    clock: Clock | None = None,
) -> int:
    """Send a request to a live run, pass on what it prints as it comes, and return its exit status.

    Raises:
        MachineError: the run ended before it answered.
    """
    clock = clock or MonotonicClock()
    desk = folder / "journal" / FOLDER
    if not desk.is_dir():
        raise MachineError(f"live run: {folder} does not answer yet, but a net is needed; wait until it emulates")
    enquiry = Enquiry(desk / secrets.token_hex(6))
    write_whole(enquiry.request, json.dumps(request))
    ring(run.path / "guest")
    try:
        return _follow(enquiry, run, write, clock)
    except BaseException:
        with suppress(OSError):  # the run may be over, and its journal gone
            enquiry.cancel.touch()
        raise


def _follow(enquiry: Enquiry, run: RunDirectory, write: Callable[[bytes], object], clock: Clock) -> int:
    passed_on = 0
    while True:
        status = _text(enquiry.status)  # before the output: what came before the status is then complete
        output = _bytes_from(enquiry.output, passed_on)
        passed_on += len(output)
        write(output)
        if status is not None:
            return int(status)
        if run.owner_pid is None or not enquiry.request.exists():
            raise MachineError("live run: it ended before it answered; run it again for longer")
        clock.sleep_until_ns(clock.now_ns() + LOOK_INTERVAL_NS)


def _is_live(run: RunDirectory) -> bool:
    return run.owner_pid is not None and (run.path / POINTER).exists()


def _text(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:
        return None


def _bytes_from(path: Path, offset: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read()
    except OSError:
        return b""
