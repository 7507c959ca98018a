"""The process of a workload of a user's own: a function in Python that makes traffic between nodes.

Run as ``python -m isl_emu.parts.programs.user_workload`` in the container of the workload's first node.
`WorkloadProcess` starts it, and tells it the rest on its standard input.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
import traceback
from dataclasses import replace
from pathlib import Path

import numpy as np

from isl_emu.errors import IslEmuError
from isl_emu.nodes.containers import OUT_VARIABLE
from isl_emu.parts.programs.context import WorkloadContext
from isl_emu.runs.clock import RunTimes, run_clock
from isl_emu.runs.endpoints import read_endpoints
from isl_emu.runs.folder import RunFolder
from isl_emu.runs.journal import Journal
from isl_emu.scenario.parse import load_scenario
from isl_emu.scenario.user_functions import user_function

JOURNAL_PREFIX = "workload-"


def journal_of(name: str) -> str:
    """The journal of a workload's rows."""
    return f"{JOURNAL_PREFIX}{name}"


def main() -> None:
    """Load the function of one workload, say that it is ready, and call it when the run begins.

    SIGTERM sets its `stopped`. It reads two lines: where its nodes are on the machine, and the times of the run.
    """
    parser = argparse.ArgumentParser(prog="isl_emu.parts.programs.user_workload", description=__doc__)
    parser.add_argument("--name", required=True, help="of the workload")
    parser.add_argument("--folder", required=True, help="the run folder, as it is called on the machine")
    parser.add_argument("--machine", required=True, help="an open descriptor of the machine's root, in /proc/self/fd")
    options = parser.parse_args()
    told = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever the function prints goes to its log
    on_machine: str = options.machine
    places, folder = json.loads(sys.stdin.readline()), RunFolder(Path(on_machine + options.folder))
    scenario, endpoints = load_scenario(folder.scenario), read_endpoints(folder.journal)
    workload = next(workload for workload in scenario.workload if workload.name == options.name)
    sys.path = [str(Path(entry).absolute()) for entry in sys.path]
    function = user_function(workload.function, f"workload {workload.name}: function", 1, limited=False)
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    with Journal(folder.journal / f"{journal_of(workload.name)}.jsonl") as journal:
        told.write("ready\n")
        line = sys.stdin.readline()
        if not line:  # the run was given up
            return
        times = RunTimes(**json.loads(line))
        context = WorkloadContext(
            nodes={name: replace(endpoints[name], netns=on_machine + places[name]["netns"]) for name in workload.nodes},
            addresses={name: endpoint.address for name, endpoint in endpoints.items()},
            options=workload.options,
            rng=np.random.default_rng([scenario.seed, *workload.name.encode()]),
            duration_ns=times.duration_ns,
            write=journal.append,
            clock=run_clock(folder.journal),
            t0_ns=times.t0_ns,
            stopped=stopped,
            groups={
                name: [on_machine + path for path in places[name]["groups"]]
                for name in workload.nodes
                if name != workload.nodes[0]  # what is started there is in its container anyway
            },
            machine=int(Path(on_machine).name),
            files=Path(os.environ[OUT_VARIABLE]).parent,
        )
        os.chdir(context.out)  # what the function writes by a relative path is kept
        if context.wait_until_ns(0):
            try:
                function(context)
            except IslEmuError as error:
                traceback.print_exc()
                sys.exit(str(error))  # the last line of its log


if __name__ == "__main__":
    main()
