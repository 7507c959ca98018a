"""The process of a workload of a user's own: a function in Python that makes traffic between nodes.

Run as ``python -m isl_emu.parts.programs.user_workload`` in the container of the workload's first node.
`WorkloadProcess` starts it, and tells it the rest on its standard input.
"""

from __future__ import annotations

import json
import os
import sys

from isl_emu.nodes.namespaces import NetworkThreads, give_up_rights

JOURNAL_PREFIX = "workload-"


def journal_of(name: str) -> str:
    """The journal of a workload's rows."""
    return f"{JOURNAL_PREFIX}{name}"


def main() -> None:
    """Load the function of one workload, say that it is ready, and call it when the run begins.

    SIGTERM sets its `stopped`. It reads two lines: what `WorkloadProcess` tells it, and the times of the run.
    """
    told = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever the function prints goes to its log
    facts = json.loads(sys.stdin.readline())
    threads = {node: NetworkThreads(f"/proc/self/fd/{place}") for node, place in facts["networks"].items()}
    give_up_rights()
    if len(os.listdir("/proc/self/task")) != 1 + len(threads):
        sys.exit("workload: a thread has rights left that this process has given up; report this as a fault of isl-emu")
    from isl_emu.parts.programs.context import call_workload  # noqa: PLC0415  numpy starts threads: without rights

    call_workload(facts, threads, told)


if __name__ == "__main__":
    main()
