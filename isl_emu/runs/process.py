"""The processes of a run: started from a module of ours, watched, and ended in order."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

LAST_WORDS_S = 15.0  # for a process to write down what it has
# `python -m` finds modules in the current folder first: a random.py there would be taken for Python's own.
_RUN_MODULE = """import sys
sys.path = [entry for entry in sys.path if entry]
import os
sys.path.append(os.getcwd())
import runpy
runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
"""


def module_command(module: str, *words: str) -> list[str]:
    """The command that runs a Python module of ours; what lies in the current folder is found last."""
    return [sys.executable, "-c", _RUN_MODULE, module, *words]


def start_module(words: Sequence[str], **streams: Any) -> subprocess.Popen[bytes]:
    """Start a Python module of ours as a process, which the kernel ends if this one dies.

    Args:
        words: the module and its options.
        streams: as of `subprocess.Popen`.
    """
    command = ["setpriv", "--pdeathsig", "TERM", *module_command(*words)]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, **streams)


def end(processes: Iterable[subprocess.Popen[Any]], timeout_s: float = LAST_WORDS_S) -> None:
    """Tell processes to end, wait for that together, and kill those that have not in time."""
    processes = list(processes)
    for process in processes:
        process.terminate()
    until_s = time.monotonic() + timeout_s
    for process in processes:
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, until_s - time.monotonic()))
    kill(processes)


def kill(processes: Iterable[subprocess.Popen[Any]]) -> None:
    """Kill processes, which have nothing to write down, and wait until they are gone."""
    processes = list(processes)
    for process in processes:
        process.kill()
    for process in processes:
        process.wait()


def last_line(log: Path) -> str:
    """What a process printed last."""
    lines = log.read_text(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it printed nothing")
