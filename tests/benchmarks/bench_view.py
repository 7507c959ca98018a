"""How fast the page of `isl-emu view` draws the largest shipped constellation in Chromium, with no graphics card.

    .venv/bin/python tests/benchmarks/bench_view.py [SCENARIO] [--seconds 20]

Frames are those that the page drew while it played. A machine that does something else meanwhile has fewer of them; the
CPU time of a frame, of all of the browser's processes together, says what it takes all the same.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from tests.browser import PATIENCE_S, Page, browser_page  # noqa: E402

SCENARIO, WIDTH, HEIGHT = "three-body-2035", 1280, 800
SLOWEST = "document.getElementById('speed').value = '1'"


def children(process: int) -> list[int]:
    """A process and all that it started."""
    found = [process]
    told = subprocess.run(["ps", "-e", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    for line in told.splitlines():
        pid, parent = map(int, line.split())
        if parent in found:
            found.append(pid)
    return found


def cpu_s() -> float:
    """What all processes that we started have used."""
    used = 0.0
    for pid in children(os.getpid())[1:]:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except FileNotFoundError:  # it has ended
            continue
        used += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return used


def frames(page: Page) -> int:
    return int(page.evaluate("islEmuView.state.frames"))


def measure(page: Page, seconds: float) -> tuple[float, float]:
    """Frames a second, and the CPU time of a frame in ms, while the page plays."""
    page.evaluate(SLOWEST)
    page.evaluate("document.getElementById('play').click()")
    time.sleep(2)
    before, used_s, begun_s = frames(page), cpu_s(), time.monotonic()
    time.sleep(seconds)
    drawn, used_s, took_s = frames(page) - before, cpu_s() - used_s, time.monotonic() - begun_s
    assert page.evaluate("islEmuView.state.playing"), "the plan ended before"
    return drawn / took_s, used_s / drawn * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenario", nargs="?", default=SCENARIO)
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    command = [sys.executable, "-m", "isl_emu", "view", options.scenario, "--no-browser"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            assert server.stdout is not None
            address = server.stdout.readline().split()[1]
            with browser_page() as page:
                page.open(address, WIDTH, HEIGHT)
                end = time.monotonic() + PATIENCE_S / 2
                while not page.evaluate("globalThis.islEmuView?.state.frames > 0"):
                    assert time.monotonic() < end, page.complaints
                    time.sleep(0.1)
                nodes, lines = page.evaluate("[islEmuView.nodes, islEmuView.state.lines]")
                per_s, cpu_ms = measure(page, options.seconds)
        finally:
            server.terminate()
    load = os.getloadavg()[0]
    print(f"{options.scenario}: {nodes} nodes, {lines} links up, {WIDTH} x {HEIGHT}, {os.cpu_count()} cores")
    print(f"{per_s:.1f} frames/s at a load of {load:.1f}; {cpu_ms:.0f} ms of CPU a frame; {platform.machine()}")


if __name__ == "__main__":
    main()
