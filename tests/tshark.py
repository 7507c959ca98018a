"""Captures as Wireshark reads them, by tshark."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

needs_tshark = pytest.mark.skipif(
    shutil.which("tshark") is None,
    reason="no tshark is on this machine, but Wireshark's own reading is tested by it; apt-get install tshark",
)


def fields(path: Path, *names: str) -> list[list[str]]:
    """Fields of each packet of a file, which tshark must read without a complaint."""
    words = ["tshark", "-N", "nN", "-r", str(path), "-T", "fields", "-E", "separator=|"]
    words += [word for name in names for word in ("-e", name)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    complaints = [line for line in done.stderr.splitlines() if not line.startswith("Running as user")]
    assert (done.returncode, complaints) == (0, [])
    return [line.split("|") for line in done.stdout.splitlines()]
