"""What a routing daemon in every satellite costs: time of the wall, processor time, and memory of a node's daemons.

    .venv/bin/python tests/benchmarks/bench_routing.py [--sizes 66,264,528] [--seconds 10] [--clock exact|real]
        [--hello 1] [--protocol ospf|isis|bgp]

Runs `isl-emu run` from outside, as users do: Walker deltas under +Grid whose routes FRR's daemons make, with a laser
that is lost half-way. Memory is that of the two daemons of one satellite while the run is live: what each has of its
own (anonymous pages), and what all of a kind share (their programs and libraries).
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from isl_emu.parts.routing.frr import DAEMONS  # noqa: E402
from tests.scenarios import head, shell, table  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
PLANES = {66: 6, 264: 12, 528: 24}
LASERS = {"topology": "+grid", "rate": "10 Gbit/s", "grazing_altitude": "80 km"}
NODE = "p01s01"
COMMAND = [sys.executable, "-m", "isl_emu"]
ASK = "grep -h -e ^Name -e ^RssAnon -e ^RssFile /proc/[0-9]*/status"


def scenario(size: int, seconds: float, hello: int, protocol: str) -> str:
    """A Walker delta of that size with the protocol, and a laser that nobody is told of losing."""
    text = head(duration=f"{seconds:g} s", step="1 s")
    text += shell(size, PLANES[size], 1, lasers=LASERS, altitude="780 km", inclination="60 deg")
    text += table("routing", policy="none") + table("routing.daemon", protocol=protocol, hello=f"{hello} s",
                                                    dead=f"{4 * hello} s")  # fmt: skip
    cut = {"at": f"{round(seconds / 2)} s", "for": f"{seconds:g} s"}
    text += table("[program]", name="memory", node=NODE, command=["sh", "-c", ASK], at="1 s")
    return text + table("[fault]", name="cut", links=["p01s01 - p01s02"], effect="cut", **cut)


def measured(size: int, seconds: float, clock: str, hello: int, protocol: str) -> list[str]:
    """A row of the table."""
    with tempfile.TemporaryDirectory(dir=ROOT) as folder:
        path, out = Path(folder, "scenario.toml"), Path(folder, "out")
        path.write_text(scenario(size, seconds, hello, protocol))
        begun, before = time.monotonic(), os.times()
        words = ["run", str(path), "--clock", clock, "--no-report", "--out", str(out)]
        done = subprocess.run([*COMMAND, *words], capture_output=True, text=True, check=False)
        said, log = done.stdout + done.stderr, out / "programs" / "memory.log"
        wall_s, after = time.monotonic() - begun, os.times()
        cpu_s = after.children_user + after.children_system - before.children_user - before.children_system
        rows = pq.read_table(out / "convergence.parquet").to_pylist() if log.exists() else []
        phases = dict(re.findall(r"✓ (\S+).*? ([\d.]+ (?:s|min.*))$", said, re.MULTILINE))
        verdict = " ".join(said.strip().splitlines()[-2:])
        if not rows:
            print(said, file=sys.stderr)
        lost = next((row for row in rows if row["links_lost"]), None)
        return [
            str(size), clock, f"{wall_s:.0f} s", f"{cpu_s:.0f} s", str(phases),
            " + ".join(f"{mib:.1f} MiB" for mib in _memory_mib(log.read_text() if log.exists() else "")),
            "" if lost is None else f"{lost['pairs_cut']} for {(lost['outage_max_ns'] or 0) / 1e6:.0f} ms", verdict,
        ]  # fmt: skip


def _memory_mib(statuses: str) -> tuple[float, float]:
    """Anonymous memory of both daemons, and that of files, by what their statuses in /proc say."""
    own = shared = 0
    for name, *pages in re.findall(r"Name:\s+(\w+)\nRssAnon:\s+(\d+) kB\nRssFile:\s+(\d+) kB", statuses):
        if name in ("zebra", *DAEMONS.values()):
            own, shared = own + int(pages[0]), shared + int(pages[1])
    return own / 1024, shared / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="66,264,528")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--clock", default="exact")
    parser.add_argument("--hello", type=int, default=1, help="seconds; a neighbour is gone after four times as long")
    parser.add_argument("--protocol", default="ospf", choices=DAEMONS)
    options = parser.parse_args()
    usual = options.seconds, options.clock, options.hello, options.protocol
    rows = [measured(int(size), *usual) for size in options.sizes.split(",")]
    header = ("satellites", "clock", "wall", "CPU", "phases", "memory: own, shared", "cut off", "verdict")
    found = Table(*header)
    for row in rows:
        found.add_row(*row)
    Console(width=200).print(found)


if __name__ == "__main__":
    main()
