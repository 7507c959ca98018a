"""Runs of sweeps that are over at once, for workers of a cluster; they hold on while a file is there.

As a program, called as `isl-emu run SCENARIO --out FOLDER`, this makes a folder like that of a run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distributed import WorkerPlugin

from isl_emu.sweeps import worker as at_work
from isl_emu.sweeps.worker import Seat

HOLD, BEGUN, FAIL = "QUICK_RUNS_HOLD", "QUICK_RUNS_BEGUN", "QUICK_RUNS_FAIL"  # variables with the names of files
APART = "QUICK_RUNS_APART"  # a variable that says that workers have no file in common with who asks


class QuickRuns(WorkerPlugin):
    """Makes a worker's runs quick."""

    def setup(self, worker: Any) -> None:
        at_work.start_module = start
        at_work.seat = seat
        if APART in os.environ:
            at_work.is_shared = lambda job: False


def seat(*_: Any) -> Seat:
    return Seat("machine", "host", "exact", "", "")


def start(words: Sequence[str], **streams: Any) -> subprocess.Popen[bytes]:
    command = ["setpriv", "--pdeathsig", "KILL", sys.executable, __file__, *words[2:]]
    return subprocess.Popen(command, start_new_session=True, **streams)


def main(scenario: Path, folder: Path) -> None:
    with Path(os.environ[BEGUN]).open("a") as begun:
        begun.write(f"{os.getpid()} {folder}\n")
    while HOLD in os.environ and Path(os.environ[HOLD]).exists():
        time.sleep(0.05)
    if scenario.parent.name.startswith(os.environ.get(FAIL, "none")):
        sys.exit("it is not to be")
    text = scenario.read_text()
    (folder / "files" / "gs").mkdir(parents=True)
    (folder / "files" / "gs" / "link").symlink_to("/etc/passwd")
    (folder / "scenario.toml").write_text(text)
    (folder / "serving.json").write_text(json.dumps({"characters": len(text)}))
    (folder / "fidelity.json").write_text(json.dumps({"verdict": "valid", "clock": "exact", "reasons": []}))
    (folder / "provenance.json").write_text(json.dumps({"execution": {"ended_ns": 10, "error": None}}))
    print("done")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[3]))
