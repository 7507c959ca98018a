"""How true links between guests are in real time, beside links within one: one-way errors of probes over a single link.

    python tests/benchmarks/bench_real_guests.py [--guests 2] [--duration 30s] [--links 4] [--rounds 1]

A shell of 24 satellites whose lasers are probed in both directions every 100 ms: links that cross to another guest,
and as many that do not. The error is what a probe took beyond the plan. What lies between the guests is taken off each
frame; were it not, what crosses would be longer by what probes between the kernels take, which is told beside it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from isl_emu.experiment import load_source
from isl_emu.linkplan.plan import LinkKind
from isl_emu.live.spread import cut_of
from isl_emu.units import NS_PER_US

ROOT = Path(__file__).resolve().parents[2]
SHELL = """
name = "links-between-guests"
[time]
start = 2026-03-20T14:00:00Z
duration = "{duration}"
[[shell]]
name = "mesh"
walker = {{ pattern = "delta", total = 24, planes = 4, phasing = 1 }}
altitude = "1200 km"
inclination = "60 deg"
[shell.lasers]
topology = "+grid"
rate = "10 Gbit/s"
[probes]
interval = "100 ms"
pairs = {pairs}
"""
KINDS = "within a guest", "between guests"


def probed(scenario: Path, duration: str, guests: int, count: int) -> list[list[str]]:
    """The ends of some lasers that are always up: of each kind as many."""
    source = load_source(scenario, {"time": {"duration": duration}})
    plan, part = source.plan, cut_of(source, guests, "real").part
    always = np.bincount(plan.row_link, minlength=len(plan.links.a)) == plan.grid.count
    lasers = always & (plan.links.kind != LinkKind.GROUND)
    crossing = part[plan.links.a] != part[plan.links.b]
    chosen = [np.flatnonzero(lasers & of_kind)[:count] for of_kind in (~crossing, crossing)]
    names = plan.nodes.names
    return [[names[plan.links.a[link]], names[plan.links.b[link]]] for link in np.concatenate(chosen).tolist()]


def measured(scenario: Path, guests: int, out: Path) -> tuple[dict[str, list[int]], list[float]]:
    """Errors of a run's probes over a single link, by kind; and what its kernels' probes took (p25), ns."""
    words = ["run", str(scenario), "--clock", "real", "--guests", str(guests), "--no-report", "--out", str(out)]
    subprocess.run([sys.executable, "-m", "isl_emu", *words], check=False, stdout=subprocess.DEVNULL, cwd=ROOT)
    fidelity = json.loads((out / "fidelity.json").read_text())
    print(f"{fidelity['verdict']}: {'; '.join(fidelity['reasons']) or 'no reasons against it'}")
    nodes = load_source(out / "scenario.toml", {}).plan.nodes.names
    part = dict(zip(nodes, json.loads((out / "cut.json").read_text())["part"], strict=True))
    errors: dict[str, list[int]] = {kind: [] for kind in KINDS}
    for row in pq.read_table(out / "probes.parquet").to_pylist():
        if row["hops"] == 1 and row["error_ns"] is not None and not row["straddles_change"]:
            errors[KINDS[part[row["a"]] != part[row["b"]]]].append(row["error_ns"])
    return errors, [one["delay_q1_ns"] for one in fidelity["substrate"]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--guests", type=int, default=2)
    parser.add_argument("--duration", default="30s")
    parser.add_argument("--links", type=int, default=4, help="of each kind")
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    table = Table("round", "probes over one link", "number", "error p50", "p5", "p95", "taken off, p25")
    with tempfile.TemporaryDirectory() as folder:
        scenario = Path(folder, "scenario.toml")
        scenario.write_text(SHELL.format(duration=options.duration, pairs=[]))
        pairs = probed(scenario, options.duration, options.guests, options.links)
        scenario.write_text(SHELL.format(duration=options.duration, pairs=json.dumps(pairs)))
        for number in range(options.rounds):
            errors, below_ns = measured(scenario, options.guests, Path(folder, str(number)))
            for kind, found in errors.items():
                middle, low, high = (f"{one / NS_PER_US:.0f} us" for one in np.percentile(found, (50, 5, 95)))
                taken_off = f"{np.median(below_ns) / NS_PER_US:.0f} us" if kind == KINDS[1] else "-"
                table.add_row(str(number), kind, f"{len(found):,}", middle, low, high, taken_off)
    Console().print(table)


if __name__ == "__main__":
    main()
