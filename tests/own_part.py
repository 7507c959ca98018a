"""The house with the part of docs/examples/part in it: a copy that tests check and run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "docs" / "examples" / "part"


class OwnHouse:
    """A copy of the package in a folder, with the example's files added and its lines changed."""

    def __init__(self, folder: Path):
        self.folder = folder
        shutil.copytree(ROOT / "isl_emu", folder / "isl_emu", ignore=shutil.ignore_patterns("__pycache__"))
        for part in ("isl_emu", "topologies"):
            shutil.copytree(EXAMPLE / part, folder / part, dirs_exist_ok=True)
        subprocess.run(["git", "apply", EXAMPLE / "house.diff"], cwd=folder, check=True)

    def call(self, *words: str | Path, status: Collection[int] = (0,)) -> str:
        """Call Python in the copy with its package, and return what it printed."""
        environment = {**os.environ, "PYTHONPATH": str(self.folder)}
        done = subprocess.run(
            [sys.executable, *words], cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode in status, done.stdout + done.stderr
        return done.stdout + done.stderr
