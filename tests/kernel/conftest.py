"""What tests on a real kernel need: the kernel, and a run whose traces are removed."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from isl_emu.machine.guest import clean_guest
from isl_emu.nodes.cgroups import remove_run_cgroups
from isl_emu.runs.directory import RunDirectory
from tests.nets import need_kernel, run_directory


@pytest.fixture
def netem() -> None:
    """Skips the test where networks cannot be made, and says what is missing."""
    need_kernel()


@pytest.fixture
def run() -> Iterator[RunDirectory]:
    """A registered run; its cgroups go with it."""
    with run_directory() as run:
        yield run
        remove_run_cgroups(run.run_id)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path, as sockets need."""
    with tempfile.TemporaryDirectory(prefix="isl-emu-test-") as name:
        yield Path(name)


@pytest.fixture
def guest_run(folder: Path) -> Iterator[RunDirectory]:
    """A run in that folder for guests, of which nothing is left."""
    directory = RunDirectory("abc123", folder / "run")
    directory.path.mkdir()
    yield directory
    clean_guest(directory)
