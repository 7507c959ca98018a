"""Makes the runs of a cluster's workers quick, and their seats exact."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from distributed import WorkerPlugin

from isl_emu.sweeps import worker as at_work
from isl_emu.sweeps.worker import Seat
from tests import quick_run

APART = "QUICK_RUNS_APART"  # a variable that says that workers share no file with who asks


class QuickRuns(WorkerPlugin):
    """As the module says."""

    def setup(self, worker: Any) -> None:
        at_work.start_module = start
        at_work.seat = seat
        if APART in os.environ:
            at_work.is_shared = lambda job: False


def seat(*_: Any) -> Seat:
    return Seat("machine", "host", "exact", "", "")


def start(words: Sequence[str], **streams: Any) -> subprocess.Popen[bytes]:
    command = ["setpriv", "--pdeathsig", "KILL", sys.executable, "-I", quick_run.__file__, *words[2:]]
    return subprocess.Popen(command, start_new_session=True, **streams)
