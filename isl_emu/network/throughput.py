"""Throughput between two nodes by iperf: what Mininet's `iperf` command prints.

Mininet's own way kills every iperf of the machine, and waits for ever for an answer that iperf 2.1 no longer gives.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence

from isl_emu.errors import NetworkError
from isl_emu.network.hosts import SpaceNode

REPORT_PATIENCE_S = 60.0  # for the last packets, and for two programs to start
TRIES = 50  # until the server listens
TRY_PAUSE_S = 0.2


def run_iperf(client: SpaceNode, server: SpaceNode, words: Sequence[str], load: Sequence[str]) -> tuple[str, str]:
    """Run an iperf server in one node and a client in the other; return what both print, the server's first.

    Args:
        words: options for both, such as a port.
        load: options of the client: how much to send.

    Raises:
        NetworkError: there is no iperf, or the client reached no server.
    """
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    try:
        serving = server.popen(["iperf", "-s", *words], **streams)
    except FileNotFoundError:
        raise NetworkError("iperf: the program is not installed, but it measures; apt-get install iperf") from None
    try:
        for _ in range(TRIES):
            sent, _ = client.popen(["iperf", "-c", server.IP(), *words, *load], **streams).communicate()
            if "refused" not in sent:
                break
            time.sleep(TRY_PAUSE_S)
    finally:
        serving.terminate()
        received, _ = serving.communicate(timeout=REPORT_PATIENCE_S)
    if "/sec" not in sent:
        raise NetworkError(f"iperf: {client.name} got nothing through to {server.name}: {' '.join(sent.split())}")
    return received, sent
