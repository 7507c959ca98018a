"""A long run, looked at from time to time from inside and outside: what grows? Exit status 1 if anything does."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

import isl_emu
from isl_emu.runs.process import module_command

LOOK = """
import json, os, time
found = {"t_s": time.time(), "processes": 0, "open files": 0, "memory of processes, MiB": 0.0}
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            found["memory of processes, MiB"] += sum(int(l.split()[1]) for l in file if l.startswith("Pss:")) / 1024
        found["open files"] += len(os.listdir(f"/proc/{pid}/fd"))
        found["processes"] += 1
    except OSError:
        pass
with open("/proc/meminfo") as file:
    free = {l.split(":")[0]: int(l.split()[1]) / 1024 for l in file}
found["kernel's own memory, MiB"] = free["SUnreclaim"] + free.get("KernelStack", 0) + free.get("PageTables", 0)
print(json.dumps(found))
"""
FIGURES = ("processes", "open files", "memory of processes, MiB", "kernel's own memory, MiB")
OUTSIDE = ("launcher: open files", "launcher: memory, MiB")
MAY_GROW = {"processes": 2, "open files": 10, "launcher: open files": 4}  # between two looks something may be under way
MAY_GROW_RATIO = 0.05  # of memory
MIB = 1 << 20


def main() -> int:
    """Run, look, and print a row for each figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenario", nargs="?", default="three-body")
    parser.add_argument("--duration", default="2h")
    parser.add_argument("--clock", choices=["exact", "real"], default="exact")
    parser.add_argument("--every", type=float, default=20.0, help="seconds by the wall between two looks")
    parser.add_argument("--out", type=Path, help="folder for the results; by default a temporary one")
    parser.add_argument("--set", dest="settings", action="append", default=[], help="as of isl-emu run")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        out = options.out or Path(temporary) / "out"
        words = [options.scenario, "--duration", options.duration, "--clock", options.clock, "--out", str(out)]
        words += [word for setting in options.settings for word in ("--set", setting)]
        begun_s = time.monotonic()
        run = subprocess.Popen(module_command("isl_emu", "run", *words), stdout=subprocess.DEVNULL)
        looks = list(_looks(run, out, options.every))
        took = f"{time.monotonic() - begun_s:.0f} s, exit status {run.returncode}"
        print(f"{options.scenario}, {options.duration} in {options.clock} time: {took}")
        if run.returncode or len(looks) < 8:
            print(
                f"soak: {len(looks)} looks, but 8 of a run that ends in order are needed; make it longer",
                file=sys.stderr,
            )
            return 1
        return _judge(looks, isl_emu.RunResults(out))


def _looks(run: subprocess.Popen[bytes], out: Path, every_s: float) -> Iterable[dict[str, float]]:
    """What is found inside and outside, while the run is live."""
    node = None
    while run.poll() is None:
        time.sleep(every_s)
        if node is None and (out / "scenario.toml").is_file():
            scenario = isl_emu.load(out / "scenario.toml")
            visited = {*scenario.serving_satellites, *scenario.visited_nodes}
            node = next(name for name in scenario.node_names if name not in visited)
        if node is None:
            continue
        command = module_command("isl_emu", "exec", "--run", str(out), node, "--", "python3", "-c", LOOK)
        done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        if done.returncode == 0:
            launcher = Path(f"/proc/{run.pid}")
            resident = int((launcher / "statm").read_text().split()[1]) * 4096 / MIB
            outside = len(list((launcher / "fd").iterdir())), resident
            yield json.loads(done.stdout) | dict(zip(OUTSIDE, outside, strict=True))


def _judge(looks: list[dict[str, float]], results: isl_emu.RunResults) -> int:
    """Print the second and the last quarter side by side; the first is for warming up."""
    quarter = len(looks) // 4
    grown = []
    print(f"{'':28}{'2nd quarter':>14}{'last quarter':>14}   of {len(looks)} looks")
    for name in (*FIGURES, *OUTSIDE):
        before, after = (
            float(np.median([look[name] for look in part])) for part in (looks[quarter : 2 * quarter], looks[-quarter:])
        )
        limit = before + MAY_GROW.get(name, MAY_GROW_RATIO * before)
        grown += [name] if after > limit else []
        print(f"{name:28}{before:14.1f}{after:14.1f}   {'GROWS' if after > limit else 'flat'}")
    lateness = pq.read_table(results.path / "instants.parquet")["lateness_ns"].to_numpy() / 1e6
    size = len(lateness) // 4
    first, last = np.percentile(lateness[size : 2 * size], 99), np.percentile(lateness[-size:], 99)
    print(f"{'lateness p99, ms':28}{first:14.3f}{last:14.3f}   {'GROWS' if last > 2 * first + 1 else 'flat'}")
    print(results.summary.strip().splitlines()[-1])
    return 1 if grown or last > 2 * first + 1 else 0


if __name__ == "__main__":
    sys.exit(main())
