"""What several guests gain: the same run in one, two, four guests, beside what its cut promised.

    python tests/benchmarks/bench_guests.py [--guests 1,2,4] [--interval "10 ms"] [--target nearest] [--duration 20s]
                                            [--rounds 2]

Starlink's first shell with a modelled server on each satellite, and a station at each site of the catalogue;
`--interval` is the mean time between two questions of all stations, each with 128 tokens of answer. The guests take
turns, so that what else the machine does hits all alike; the fastest round counts. All tables are compared with those
of one guest. As many cores as guests are needed: what more guests gain is told only where they have them: where guests
share a core the expectation adds up what they cost.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from isl_emu.scenario.sites import site_catalogue

ROOT = Path(__file__).resolve().parents[2]
STATION = """
[[station]]
name = "gs-{site}"
site = "{site}"
min_elevation = "25 deg"
antennas = 2
uplink = "1 Gbit/s"
downlink = "1 Gbit/s"
"""
TRAFFIC = """
[[compute]]
satellites = ["*"]
server = "modelled"
board = "inference-2035"
model = "qwen3-8b"

[questions]
mean_interval = "{interval}"
target = "{target}"
max_answer_tokens = 128
prompts = ["What is an orbit?", "Why is the sky blue?"]
"""
OF_EACH_KERNEL = {"load.parquet"}


def run(scenario: Path, guests: int, duration: str, out: Path) -> dict[str, float]:
    """One run; seconds of the wall by phase, and what was expected of it."""
    words = ["run", str(scenario), "--clock", "exact", "--guests", str(guests), "--duration", duration, "--no-report"]
    subprocess.run([sys.executable, "-m", "isl_emu", *words, "--out", str(out)], check=True, stdout=subprocess.DEVNULL)
    took: dict[str, float] = json.loads((out / "provenance.json").read_text())["execution"]["phases_s"]
    cut = out / "cut.json"
    if cut.exists():
        took["expected"] = expected_s(json.loads(cut.read_text()))
    return took


def expected_s(cut: dict[str, Any]) -> float:
    """What its cut promises, as `isl-emu plan --parts` does, but with no more cores than there are."""
    promised = cut["expected"]
    on_a_core = -(-len(cut["parts"]) // (os.cpu_count() or 1))  # guests that share one
    loads = sorted((part["load_s"] + promised["whole_s"] for part in cut["parts"]), reverse=True)
    apart = sum(max(part[phase] for part in cut["parts"]) for phase in ("build_s", "run_s")) + promised["whole_s"]
    waiting: float = promised["wall_s"] - apart  # meetings, and what crosses
    return sum(loads[:on_a_core]) + on_a_core * waiting


def differing(one: Path, other: Path) -> set[str]:
    """The tables that are not the same bytes."""
    names = {path.name for path in [*one.glob("*.parquet"), *other.glob("*.parquet")]} - OF_EACH_KERNEL
    return {name for name in names if (one / name).read_bytes() != (other / name).read_bytes()}


def main() -> int:
    """Run them in turns and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--guests", default="1,2,4")
    parser.add_argument("--interval", default="10 ms")
    parser.add_argument("--target", default="nearest")
    parser.add_argument("--duration", default="20s")
    parser.add_argument("--rounds", type=int, default=2)
    asked = parser.parse_args()
    counts = [int(word) for word in asked.guests.split(",")]
    found: dict[int, list[dict[str, float]]] = {count: [] for count in counts}
    differ: dict[int, set[str]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scenario = folder / "traffic.toml"
        shell = (ROOT / "isl_emu" / "topologies" / "starlink-shell-1.toml").read_text().partition("[[station]]")[0]
        stations = "".join(STATION.format(site=site) for site in sorted(site_catalogue()))
        traffic = TRAFFIC.format(interval=asked.interval, target=asked.target)
        scenario.write_text(shell + stations + traffic)
        for number in range(asked.rounds):
            for count in counts:
                out = folder / f"{number}-{count}"
                found[count].append(run(scenario, count, asked.duration, out))
                differ[count] = differing(folder / f"{number}-{counts[0]}", out)
    asks = f"{asked.interval} a question, to {asked.target}"
    table = Table(title=f"{asks}, {asked.duration} emulated, {os.cpu_count()} CPUs")
    for title in ("guests", "building", "emulating", "both", "times as fast", "expected", "tables that differ"):
        table.add_column(title, justify="right")
    first_s = None
    for count in counts:
        build, emulate = (min(one[phase] for one in found[count]) for phase in ("build", "run"))
        first_s = first_s or build + emulate
        expected = found[count][0].get("expected")
        table.add_row(
            str(count),
            f"{build:.1f} s",
            f"{emulate:.1f} s",
            f"{build + emulate:.1f} s",
            f"{first_s / (build + emulate):.2f}",
            "" if expected is None else f"{expected:.1f} s",
            ", ".join(sorted(differ[count])) or "none",
        )
    Console().print(table)
    return int(any(differ.values()))


if __name__ == "__main__":
    sys.exit(main())
