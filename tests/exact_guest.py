"""Programs in a guest in exact time: what they say comes back."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from isl_emu.errors import MachineError
from isl_emu.machine.guest import VirtualClock, run_in_guest
from isl_emu.machine.uml import find_uml
from isl_emu.runs.directory import RunDirectory
from isl_emu.units import NS_PER_S

MEMORY_BYTE = 512 << 20
START_UTC_S = 1_774_008_000


def missing_for_exact_time() -> str | None:
    """Why nothing can be run in exact time here; None if it can."""
    if os.environ.get("ISL_EMU_GUEST"):
        return "a guest cannot boot another"
    try:
        return None if find_uml().exact else "the kernel that has exact time is not built"
    except MachineError as error:
        return str(error)


needs_exact_time = pytest.mark.skipif(
    missing_for_exact_time() is not None, reason=f"no exact time here: {missing_for_exact_time()}"
)


def said_in_guest(
    run: RunDirectory, folder: Path, program: str, factor: float | None = None, seed: int = 0, *words: str
) -> str:
    """What a Python program says (`SAY`) in a guest in exact time that it has for itself.

    Args:
        folder: where its files lie, on this machine.
        words: arguments of the program.
    """
    (folder / "results").mkdir(exist_ok=True)
    (folder / "results" / "program.py").write_text(program)
    argv = [sys.executable, str(folder / "results" / "program.py"), str(folder / "results" / "said"), *words]
    clock = VirtualClock(START_UTC_S * NS_PER_S, factor, seed)
    status = run_in_guest(argv, run=run, writable=[folder / "results"], memory_byte=MEMORY_BYTE, clock=clock)
    assert status == 0
    return (folder / "results" / "said").read_text()


# The head of a program: `say` says, `sh` runs a command, `sleep_until` is exact, `enter` goes into a namespace.
SAY = """
import ctypes, os, select, socket, subprocess, sys, threading, time
said = open(sys.argv[1], "w")
libc = ctypes.CDLL(None)
def say(*words):
    print(*words, file=said, flush=True)
def sh(line):
    subprocess.run(line, shell=True, check=True)
class Timespec(ctypes.Structure):
    _fields_ = [("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long)]
def sleep_until(deadline_ns):
    deadline = Timespec(*divmod(deadline_ns, 10**9))
    libc.clock_nanosleep(time.CLOCK_MONOTONIC, 1, ctypes.byref(deadline), None)
def enter(name):
    with open(f"/run/netns/{name}") as space:
        libc.setns(space.fileno(), 0x40000000)
"""
