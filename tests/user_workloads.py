"""Workloads for the tests that go wrong, or that compute; an ordinary one is in docs/examples."""

from __future__ import annotations

import os
import socket
import sys
import threading

import isl_emu

SPIN = "while True: pass"


def broken(context) -> None:
    """Fails."""
    raise RuntimeError("this workload is broken")


def endless(context) -> None:
    """Never looks at the time."""
    while True:
        pass


def noting(context) -> None:
    """Writes one row and a file, and prints."""
    print("it was called")
    with open("noted.txt", "w") as file:
        file.write("kept")
    context.record(duration_ns=context.duration_ns)


def computing(context) -> None:
    """Computes until the end of the run, itself and by a program in its second node."""
    first, second = context.nodes
    context.record(host=socket.gethostname(), pid=os.getpid())
    print("it computes", flush=True)
    program = context.popen(second, [sys.executable, "-c", SPIN])
    while context.wait_until_ns(context.now_ns() + 1):
        pass
    program.kill()
    context.record(host="program", pid=program.wait())


def stating(context) -> None:
    """Says how long it computes in each of its nodes, at once in the first one."""
    first, second = context.nodes
    at_once = [threading.Thread(target=_state, args=(context, first, seconds)) for seconds in (0.5, 1.0)]
    for thread in at_once:
        thread.start()
    for thread in at_once:
        thread.join()
    _state(context, second, 0.3)


def _state(context, node: str, seconds: float) -> None:
    begun_ns = context.now_ns()
    context.in_node(node, isl_emu.compute, seconds)
    context.record(node=node, seconds=seconds, took_ns=context.now_ns() - begun_ns)


def noting_in_all(context) -> None:
    """Writes into each of its nodes' folders where that is."""
    first, *others = context.nodes
    with open("noted.txt", "w") as file:
        file.write(f"{context.out}\n")
    for node in others:
        context.popen(node, ["sh", "-c", f"echo {context.out.parent}/{node} > $ISL_EMU_OUT/noted.txt"]).wait()
