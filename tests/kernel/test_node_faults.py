"""What breaks in nodes, on a real kernel."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from isl_emu.nodes.containers import Container
from isl_emu.parts.node_faults import starve
from tests.kernel.test_containers import make, netns  # noqa: F401

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="containers need root"),
]
IDLE = "x = bytearray(64 << 20); print(len(x), flush=True); import time; time.sleep(1000)"


def test_who_is_starved_of_memory_is_killed_by_the_kernel_and_nobody_else(make: Callable[..., Container]) -> None:  # noqa: F811
    container = make()
    words = {"stdout": subprocess.PIPE}
    idle, other = (container.popen([sys.executable, "-c", IDLE], own=True, **words) for _ in range(2))
    for process in (idle, other):
        assert process.stdout is not None and process.stdout.readline()
    with open(f"/proc/{idle.pid}/oom_score_adj", "w") as score:
        score.write("1000")
    starve(container)
    assert idle.wait(60) == -signal.SIGKILL
    assert container.oom_kills() == 1
    assert other.poll() is None
    more = container.popen([sys.executable, "-c", "bytearray(64 << 20); print('enough')"], stdout=subprocess.PIPE)
    assert more.communicate(timeout=60)[0] == b"enough\n"
    other.kill()
