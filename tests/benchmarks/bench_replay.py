"""Ten updates a second at 1,584 satellites with routes to 50 stations: what they cost, and whether they fall behind.

    python -m isl_emu.machine.guest -- .venv/bin/python tests/benchmarks/bench_replay.py [--seconds 30] [--planes 72]

Needs root and netem. The sky is Starlink's first shell with 50 sites of the catalogue; routes are computed before the
run, as ever, and installed by the same replay that every run uses. Lateness is how long after its time the last change
of an instant was in force. If the last tenth of the run is no later than the first, nothing builds up.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from isl_emu.linkplan.build import plan_links
from isl_emu.linkplan.plan import LinkPlan
from isl_emu.network.kernel import KernelBackend
from isl_emu.network.replay import Replay
from isl_emu.routing.forwarding import RoutePlan, plan_routes
from isl_emu.runs.directory import create_run_directory
from isl_emu.scenario.parse import parse_scenario
from isl_emu.scenario.sites import site_catalogue
from isl_emu.timebase import MonotonicClock
from isl_emu.units import NS_PER_MS, NS_PER_S

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.scenarios import head, shell, station  # noqa: E402

SLOTS, STATIONS = 22, 50
STEP_MS = 100
LASERS = {"topology": "+grid", "rate": "100 Gbit/s", "max_range": "5400 km"}


def scenario_text(planes: int, seconds: int, stations: int = STATIONS, step_ms: int = STEP_MS) -> str:
    """Some planes of Starlink's first shell, and the first sites of the catalogue."""
    code = f"D:550:53.0:{planes * SLOTS}/{planes}/{min(17, planes - 1)}"
    time = {"start": "2026-03-20T12:00:00Z", "duration": f"{seconds} s", "step": f"{step_ms} ms"}
    sites = sorted(site_catalogue())[:stations]
    return (
        head("updates", rate_scale=0.001, **time)
        + shell(name="starlink", code=code, lasers=LASERS)
        + "".join(station(f"gs-{site}", site=site, min_elevation="25 deg") for site in sites)
    )


def planned(text: str) -> tuple[LinkPlan, RoutePlan, float]:
    """The links and the routes to the stations, and how long the routes of one instant took, ms."""
    plan = plan_links(parse_scenario(text, "benchmark"), "")
    stations = np.flatnonzero(plan.nodes.kind)
    begun = time.process_time()
    routes = plan_routes(plan, destinations=stations)
    return plan, routes, (time.process_time() - begun) / plan.grid.count * 1e3


def replayed(plan: LinkPlan, routes: RoutePlan) -> list[dict[str, int]]:
    """The journal of a replay of all instants in the kernel."""
    run = create_run_directory()
    with tempfile.TemporaryDirectory() as folder:
        backend = KernelBackend(plan, run.run_id)
        try:
            clock = MonotonicClock()
            replay = Replay(plan, routes, backend, clock, Path(folder), bias_ns=50_000)
            replay.apply_initial()
            replay.run(clock.now_ns() + NS_PER_S, threading.Event())
            lines = (Path(folder) / "instants.jsonl").read_text().splitlines()
        finally:
            backend.close()
            (run.path / "owner.json").unlink()
            run.path.rmdir()
    return [json.loads(line) for line in lines][1:]


def table(plan: LinkPlan, routes: RoutePlan, compute_ms: float, rows: list[dict[str, int]]) -> Table:
    """What one instant costs, and how late it was in each part of the run."""
    late_ms = np.array([row["done_ns"] - row["planned_ns"] for row in rows]) / NS_PER_MS
    work_ms = np.array([row["done_ns"] - row["begun_ns"] for row in rows]) / NS_PER_MS
    tenth = max(len(rows) // 10, 1)
    made = Table("of each instant", "median", "99 %", "most", title=f"{STEP_MS} ms steps")
    named = {
        "link ends changed": [row["links"] for row in rows],
        "routes changed": [row["routes"] for row in rows],
        "sent to the kernel, ms": work_ms,
        "late, first tenth of the run, ms": late_ms[:tenth],
        "late, last tenth, ms": late_ms[-tenth:],
        "late, all, ms": late_ms,
    }
    for name, values in named.items():
        made.add_row(name, *(f"{np.quantile(values, share):,.1f}" for share in (0.5, 0.99, 1.0)))
    made.add_row("routes computed (before the run), ms", f"{compute_ms:.1f}", "", "")
    overtaken = len(rows) - len({row["done_ns"] for row in rows})
    size = f"{len(plan.nodes.names):,} nodes, {len(plan.links.a):,} links, {len(routes.destinations)} destinations"
    made.caption = f"{size}, {len(rows):,} instants, {overtaken} of them overtaken by the next"
    return made


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--planes", type=int, default=72)
    options = parser.parse_args()
    plan, routes, compute_ms = planned(scenario_text(options.planes, options.seconds))
    print(f"planned: {compute_ms:.1f} ms an instant for its routes", file=sys.stderr)
    Console(width=120).print(table(plan, routes, compute_ms, replayed(plan, routes)))


if __name__ == "__main__":
    main()
