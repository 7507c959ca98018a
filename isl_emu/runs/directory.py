"""The folder in which a live run keeps what it must find again: after a crash, `isl-emu clean` starts from here.

Every kernel object of a run carries its run id: namespace ``isl-<run id>-<node>``, cgroup ``isl-<run id>``, and this
folder. Nothing else is ever removed.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path

from isl_emu.errors import MachineError
from isl_emu.files import read_json, write_json

RUN_ID_BYTES = 3
RUN_ID = re.compile(f"[0-9a-f]{{{2 * RUN_ID_BYTES}}}")
OWNER = "owner.json"  # of a run: which process
ROOT = 0  # root's folders are safe for everybody


@dataclass(frozen=True)
class RunDirectory:
    """One run's folder: ``<runs root>/<run id>``, with `owner.json` in it."""

    run_id: str
    path: Path

    def about(self, node: str) -> Path:
        """The file in which a node reads of itself, in a folder of its own, while the run is live."""
        return self.path / "about" / node / "node.json"

    @property
    def owner_pid(self) -> int | None:
        """The process that owns the run, or None if it is gone."""
        owner = self._owner
        return owner["pid"] if owner and _start_ticks(owner["pid"]) == owner["start_ticks"] else None

    @property
    def damage(self) -> str | None:
        """Why nobody knows who owns the run, if its owner file is there but says nothing of use."""
        if self._owner is not None or not os.path.lexists(self.path / OWNER):
            return None
        return (
            f"{self.path / OWNER}: is damaged, but it tells whether the run {self.run_id} is alive; if no isl-emu "
            "of it runs any more, remove this file, and call `isl-emu clean` again"
        )

    @property
    def is_ours(self) -> bool:
        """Whether the user who started it is the present one, also where both have become root by sudo."""
        owner = self._owner
        return owner is not None and owner.get("user") == _user()

    @property
    def _owner(self) -> dict[str, int] | None:
        owner = read_json(self.path / OWNER) or {}
        return owner if all(type(owner.get(key)) is int for key in ("pid", "start_ticks")) else None


def runs_root() -> Path:
    """Where live runs register: /run/isl-emu for root, a private folder for others."""
    if os.geteuid() == 0:
        return Path("/run/isl-emu")
    return Path(os.environ.get("XDG_RUNTIME_DIR") or f"/tmp/isl-emu-{os.getuid()}") / "isl-emu"


def create_run_directory(run_id: str | None = None) -> RunDirectory:
    """Register a run owned by this process, under a new run id unless one is given.

    Raises:
        MachineError: the folder of runs belongs to somebody else, who could then change what we run.
    """
    root, run_id = runs_root(), run_id or secrets.token_hex(RUN_ID_BYTES)
    for folder in (root.parent, root):
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.lstat().st_uid not in (os.geteuid(), ROOT):
            raise MachineError(f"{folder}: belongs to another user, but runs are kept there; set XDG_RUNTIME_DIR")
    path, draft = root / run_id, root / f".{run_id}"
    if path.exists():
        raise MachineError(f"{path}: is there already, but a run has a folder of its own; call `isl-emu clean`")
    try:
        draft.mkdir(mode=0o700)
        write_json(draft / OWNER, {"pid": os.getpid(), "start_ticks": _start_ticks(os.getpid()), "user": _user()})
        draft.rename(path)  # in one step: a folder without an owner is one of a run whose owner file was removed
    except OSError as error:
        shutil.rmtree(draft, ignore_errors=True)
        raise MachineError(
            f"{path}: cannot be made ({error.strerror}), but live runs are kept there; make room, or set "
            "XDG_RUNTIME_DIR"
        ) from None
    return RunDirectory(run_id, path)


def registered_runs() -> list[RunDirectory]:
    """All runs of this kernel, alive or left behind; a guest also sees a part of its host's run, but not as its own.

    What another user has put where ours are kept is none of them.
    """
    return [run for run in _folders() if os.path.lexists(run.path / OWNER)]


def unowned_runs() -> list[RunDirectory]:
    """Folders of runs whose owner file somebody has removed; inside a guest also those of its host's runs."""
    return [run for run in _folders() if RUN_ID.fullmatch(run.run_id) and not os.path.lexists(run.path / OWNER)]


def run_with(folder: str) -> RunDirectory | None:
    """The run of ours in whose folder, by now perhaps removed, a process has its current folder."""
    path = Path(folder.removesuffix(" (deleted)"))
    run = RunDirectory(path.parent.name, path.parent)
    return run if run.path.parent == runs_root().resolve() and RUN_ID.fullmatch(run.run_id) else None


def _folders() -> list[RunDirectory]:
    found = [path for path in sorted(runs_root().glob("[!.]*")) if path.is_dir()]
    return [RunDirectory(path.name, path) for path in found if path.lstat().st_uid == os.geteuid()]


def _user() -> int:
    """Who is at the keyboard: the one who called sudo, if anybody did."""
    caller = os.environ.get("SUDO_UID", "")
    return int(caller) if os.geteuid() == ROOT and caller.isdecimal() else os.geteuid()


def _start_ticks(pid: int) -> int | None:
    """When the process started, in clock ticks since boot: with the pid it names a process for ever."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return int(stat.rpartition(")")[2].split()[19])
