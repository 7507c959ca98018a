"""How much memory plans take as they get longer: made, written, and read again by the commands that read plans.

    .venv/bin/python tests/benchmarks/bench_long_plans.py [--durations 600s,3600s,10800s] [--faults] [--only-streamed]
        [SCENARIO]

Each plan is made and written twice, each time in a process of its own: as `isl-emu plan` does it, and with all its rows
in memory, the plain way, as which the ratio is told. Memory is the most that the process had of what the kernel cannot
take back (RssAnon of /proc), looked at every 50 ms. The file of the former is then read by commands of `isl-emu`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from isl_emu.linkplan.build import plan_links  # noqa: E402
from isl_emu.linkplan.plan_file import write_plan  # noqa: E402
from isl_emu.planned import in_threads, plan_network  # noqa: E402
from isl_emu.scenario.parse import format_scenario, load_scenario, with_changes  # noqa: E402

LOOK_S = 0.05
FAULTS = [
    {"name": "cut", "effect": "cut", "satellites": "all", "mtbf": "20 h", "mttr": "10 min", "known": "after 30 s"},
    {"name": "worse", "effect": "degrade", "satellites": "all", "mtbf": "10 h", "mttr": "10 min", "loss": 0.02},
]
READERS = {
    "path": ("path", "PLAN", "gs-london", "gs-singapore", "--at", "30s"),
    "show": ("show", "PLAN"),
    "export": ("export", "PLAN", "--format", "csv", "--out", os.devnull),
}


def measured(command: Sequence[str], environment: dict[str, str]) -> tuple[dict[str, float], str]:
    """What a command took: MiB of anonymous memory, seconds, and seconds of processors; and what it said."""
    begun, peak_kib = time.perf_counter(), 0
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, env=environment, stdout=said)
        while process.poll() is None:
            status = Path(f"/proc/{process.pid}/status").read_text()
            peak_kib = max(peak_kib, *(int(line.split()[1]) for line in status.splitlines() if "RssAnon" in line), 0)
            time.sleep(LOOK_S)
        said.seek(0)
        text = said.read()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: ended with {process.returncode}")
    return {"mib": peak_kib / 1024, "s": time.perf_counter() - begun}, text


def make(source: Path, duration: str, way: str, faults: bool, target: Path) -> dict[str, float | str]:
    """Make one plan in this process, and write it."""
    changes = {"time": {"duration": duration}, **({"fault": FAULTS} if faults else {})}
    scenario = with_changes(load_scenario(source), **changes)
    if way == "streamed":
        plan = plan_network(scenario).link_plan
    else:
        in_order = partial(in_threads, len(os.sched_getaffinity(0)))
        plan = plan_links(scenario, format_scenario(scenario), in_order)
    write_plan(plan, target)
    return {"rows": len(plan.sky.row_link), "digest": plan.digest(), "processor_s": time.process_time()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenario", nargs="?", type=Path, default=ROOT / "topologies" / "starlink-shell-1.toml")
    parser.add_argument("--durations", default="600s,3600s,10800s")
    parser.add_argument("--faults", action="store_true", help="with a cut and a degradation of all satellites")
    parser.add_argument("--only-streamed", action="store_true", help="do not make the plans the plain way too")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        duration, way, target = chosen.one
        print(json.dumps(make(chosen.scenario, duration, way, chosen.faults, Path(target))))
        return
    table = Table("duration", "rows", "plan", "processors", "memory", "all in memory", "x", "file", *READERS)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryDirectory() as folder:
        target = str(Path(folder) / "plan.parquet")
        for duration in chosen.durations.split(","):
            command = [
                sys.executable,
                __file__,
                str(chosen.scenario),
                *(["--faults"] if chosen.faults else []),
                "--one",
            ]
            cells, held_mib = [], None
            if not chosen.only_streamed:
                held, said = measured([*command, duration, "held", target], environment)
                held_mib, digest = held["mib"], json.loads(said)["digest"]
            took, said = measured([*command, duration, "streamed", target], environment)
            found = json.loads(said)
            assert held_mib is None or found["digest"] == digest, f"{duration}: streamed it is another plan"
            for words in READERS.values():
                argv = [sys.executable, "-m", "isl_emu", *(target if word == "PLAN" else word for word in words)]
                reader, _ = measured(argv, environment)
                cells.append(f"{reader['mib']:,.0f} MiB, {reader['s']:.1f} s")
            table.add_row(
                duration,
                f"{found['rows']:,}",
                f"{took['s']:.0f} s",
                f"{found['processor_s']:.0f} s",
                f"{took['mib']:,.0f} MiB",
                f"{held_mib:,.0f} MiB" if held_mib else "-",
                f"{held_mib / took['mib']:.1f}" if held_mib else "-",
                f"{Path(target).stat().st_size / 1e6:,.0f} MB",
                *cells,
            )
    Console(width=170).print(table)


if __name__ == "__main__":
    main()
