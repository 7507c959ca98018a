"""The run folder: where each result of a run lies. `docs/results.md` describes the files for users."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from isl_emu.errors import MachineError, ScenarioError

REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)


def not_plain(path: Path) -> ScenarioError:
    """The error of what is neither a file nor a folder in a folder of results."""
    return ScenarioError(
        f"{path}: is a link, a pipe or a device, but results are files and folders; remove it, and trust nothing of "
        "this run"
    )


@dataclass(frozen=True)
class RunFolder:
    """A folder of results; `journal` holds what is written while the run is live.

    Args:
        part: whose journal it is, of a run that several guests share.
    """

    path: Path
    part: int = 0

    @classmethod
    def create(cls, path: Path | None, name: str) -> RunFolder:
        """Make a new folder at `path`, by default results/<name>-<UTC time>, that only its user may enter.

        One that is there already keeps its mode.

        Raises:
            ScenarioError: it exists and is not empty, or cannot be made.
        """
        path = (path or Path("results") / f"{name}-{datetime.now(timezone.utc):%Y%m%d-%H%M%S}").absolute()
        try:
            if path.is_dir() and any(path.iterdir()):
                raise ScenarioError(f"--out: {path} is not empty, but results are never mixed; name a new folder")
            path.parent.mkdir(parents=True, exist_ok=True)
            for folder in (path, path / "journal"):
                folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise ScenarioError(
                f"--out: {path} cannot be made ({error.strerror}), but results go there; name another folder"
            ) from None
        return cls(path)

    @contextmanager
    def written_or_told(self) -> Iterator[None]:
        """What cannot be written in the block because the machine refuses, a full disk mostly, is a MachineError."""
        try:
            yield
        except OSError as error:
            elsewhere = error.filename is not None and not Path(os.fsdecode(error.filename)).is_relative_to(self.path)
            if error.errno not in REFUSALS or elsewhere:
                raise
            raise MachineError(
                f"{self.path}: cannot be written ({os.strerror(error.errno)}), but what a run writes down goes there; "
                f"make room, and `isl-emu conclude {self.path}` makes results of what was written"
            ) from error

    def check_plain(self) -> None:
        """Raise a ScenarioError if anything but files and folders lies where results are read and written.

        A link would lead them elsewhere, with the rights of who concludes the run, and a pipe would hold them up. What
        programs have written in `files` nobody follows.
        """
        for where, folders, names in os.walk(self.path):
            if Path(where) == self.path and "files" in folders:
                folders.remove("files")
            for name in (*folders, *names):
                path = Path(where, name)
                mode = path.lstat().st_mode
                if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                    raise not_plain(path)

    def give_to_caller(self) -> None:
        """Let who called sudo enter the results of a run that is over; nobody else but root may."""
        uid, gid = (os.environ.get(name, "") for name in ("SUDO_UID", "SUDO_GID"))
        if os.geteuid() == 0 and uid.isdecimal() and gid.isdecimal():
            os.chown(self.path, int(uid), int(gid))

    @property
    def journal(self) -> Path:
        """What the run's processes write while it is live."""
        return self.path / (f"journal.{self.part}" if self.part else "journal")

    @property
    def logs(self) -> Path:
        """What servers and other processes printed, once the run is over."""
        return self.path / "logs"

    @property
    def scenario(self) -> Path:
        """The resolved scenario, TOML."""
        return self.path / "scenario.toml"

    @property
    def plan(self) -> Path:
        """The link plan, Parquet."""
        return self.path / "plan.parquet"

    @property
    def routes(self) -> Path:
        """The route plan, for the live part and the results; not for users."""
        return self.journal / "routes"

    @property
    def provenance(self) -> Path:
        """What the run was made with, JSON."""
        return self.path / "provenance.json"

    @property
    def execution(self) -> Path:
        """What the live part wrote down about itself, JSON."""
        return self.journal / "execution.json"

    @property
    def fidelity(self) -> Path:
        """The verdict and its figures, JSON."""
        return self.path / "fidelity.json"

    def files_of(self, node: str) -> Path:
        """What programs in a node have written; there only if they have."""
        return self.path / "files" / node

    def table(self, name: str) -> Path:
        """A table of the results, Parquet."""
        return self.path / f"{name}.parquet"

    @property
    def tables(self) -> list[Path]:
        """All tables of the results that are there, by name."""
        return sorted(path for path in self.path.glob("*.parquet") if path != self.plan)

    @property
    def summary(self) -> Path:
        """The report for readers, plain text."""
        return self.path / "summary.txt"
