"""The folder in which a live run keeps what it must find again: after a crash, `isl-emu clean` starts from here.

Every kernel object of a run carries its run id: namespace ``isl-<run id>-<node>``, cgroup ``isl-<run id>``, and this
folder. Nothing else is ever removed.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path

from isl_emu.errors import MachineError
from isl_emu.files import write_whole

RUN_ID_BYTES = 3
RUN_ID = re.compile(f"[0-9a-f]{{{2 * RUN_ID_BYTES}}}")
ROOT = 0  # root's folders are safe for everybody


@dataclass(frozen=True)
class RunDirectory:
    """One run's folder: ``<runs root>/<run id>``, with `owner.json` in it."""

    run_id: str
    path: Path

    @property
    def owner_pid(self) -> int | None:
        """The process that owns the run, or None if it is gone."""
        owner = self._owner
        return owner["pid"] if owner and _start_ticks(owner["pid"]) == owner["start_ticks"] else None

    @property
    def is_ours(self) -> bool:
        """Whether the user who started it is the present one, also where both have become root by sudo."""
        owner = self._owner
        return owner is not None and owner.get("user") == _user()

    @property
    def _owner(self) -> dict[str, int] | None:
        try:
            owner: dict[str, int] = json.loads((self.path / "owner.json").read_text())
        except (OSError, ValueError):
            return None
        return owner


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
    path = root / run_id
    path.mkdir(mode=0o700)
    owner = {"pid": os.getpid(), "start_ticks": _start_ticks(os.getpid()), "user": _user()}
    # in one step: a file that is half written would look like an owner that is gone
    write_whole(path / "owner.json", json.dumps(owner))
    return RunDirectory(run_id, path)


def registered_runs() -> list[RunDirectory]:
    """All runs of this kernel, alive or left behind; a guest also sees a part of its host's run, but not as its own.

    What another user has put where ours are kept is none of them.
    """
    found = [path.parent for path in sorted(runs_root().glob("*/owner.json"))]
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
