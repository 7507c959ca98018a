r"""How building, memory and updates grow with the constellation, against the kernel's own floor in the same run.

    python -m isl_emu.machine.guest --writable DIR -- \
        .venv/bin/python tests/benchmarks/bench_growth.py --json DIR/growth.json

Needs root and netem, so it runs in the guest kernel or on a machine that has it. `plot_growth.py` draws the figures.
The constellations are Walker deltas with +Grid lasers; a typical update is what one second of their sky changes.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from isl_emu.linkplan.plan import LinkPlan
from isl_emu.network.desired import changed_ends, ends_at, initial_ends
from isl_emu.network.kernel import KernelBackend
from isl_emu.planned import plan_network
from isl_emu.results.provenance import kernel_facts
from isl_emu.scenario.parse import parse_scenario

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.benchmarks.bench_network import (  # noqa: E402
    available_mib,
    backend,
    floor_build_s,
    floor_update_s,
    our_update_s,
    seconds,
)
from tests.scenarios import head, shell  # noqa: E402

PLANES = {66: 6, 1584: 72, 2800: 50, 4408: 58, 10000: 100}
ROUNDS = 5  # of each update; the fastest counts
SETTLE_S, LOOK_S, LOOKS = 600.0, 2.0, 3  # at the most; between looks at free memory, until so many find no more
BIAS_NS = 50_000
LASERS = {"topology": "+grid", "rate": "10 Gbit/s", "grazing_altitude": "80 km"}


def sky(size: int) -> LinkPlan:
    """Instants a second apart."""
    text = head("growth", rate_scale=0.01, start="2026-03-20T12:00:00Z", duration="12 s")
    text += shell(size, PLANES[size], 1, altitude="550 km", inclination="53 deg", lasers=LASERS)
    return plan_network(parse_scenario(text, "growth"), {}).link_plan


def typical_update_s(made: KernelBackend, plan: LinkPlan) -> tuple[int, float]:
    """What one second changes: how many ends, and how long finding and sending them takes.

    Delays follow the sky in small steps, each link at its own times, so the second with the median number counts.
    """
    states = [ends_at(plan, 0, initial_ends(plan, 0), BIAS_NS)]
    for k in range(1, plan.grid.count):
        states.append(ends_at(plan, k, states[-1], BIAS_NS))
    counts = [len(changed_ends(before, after)) for before, after in pairwise(states)]
    k = 1 + counts.index(sorted(counts)[len(counts) // 2])

    def update() -> None:
        after = ends_at(plan, k, states[k - 1], BIAS_NS)
        which = changed_ends(states[k - 1], after)
        made.change_ends(which, after[which])

    return counts[k - 1], min(seconds(update) for _ in range(ROUNDS))


def settle() -> None:
    """Wait until the kernel has deleted what was there before: it does so in the background, and slows who builds."""
    free_mib, same, end_s = available_mib(), 0, time.monotonic() + SETTLE_S
    while same < LOOKS and time.monotonic() < end_s:
        time.sleep(LOOK_S)
        before_mib, free_mib = free_mib, available_mib()
        same = 0 if free_mib > before_mib + 1 else same + 1


def grown(size: int) -> dict[str, Any]:
    """The figures of one size."""
    plan = sky(size)
    settle()
    floor_s = floor_build_s(plan)
    settle()
    free_mib, begun = available_mib(), time.perf_counter()
    with backend(plan) as made:
        build_s, used_mib = time.perf_counter() - begun, free_mib - available_mib()
        full_s, bare_s = our_update_s(made, plan), floor_update_s(made, ends_at(plan, 0, initial_ends(plan, 0), 0))
        changed, typical_s = typical_update_s(made, plan)
        counters_s = min(seconds(lambda: made.counters(range(size))) for _ in range(ROUNDS))
        begun = time.perf_counter()
    return {
        "satellites": size,
        "link_ends": 2 * len(plan.links.a),
        "floor_build_s": floor_s,
        "build_s": build_s,
        "memory_mib": used_mib,
        "floor_update_s": bare_s,
        "full_update_s": full_s,
        "typical_link_ends": changed,
        "typical_update_s": typical_s,
        "counters_s": counters_s,
        "teardown_s": time.perf_counter() - begun,
    }


def table(figures: list[dict[str, Any]]) -> Table:
    """The figures for readers."""
    head = ("satellites", "ends", "floor build", "build", "x floor", "MiB", "floor update", "full update", "x floor")
    shown = Table(*head, "typical: ends", "update", "read counters", "teardown", title="Growth")
    for row in figures:
        build_s, floor_s, full_s, bare_s = (
            row[key] for key in ("build_s", "floor_build_s", "full_update_s", "floor_update_s")
        )
        build = (f"{floor_s:.2f} s", f"{build_s:.2f} s", f"{build_s / floor_s:.2f}", f"{row['memory_mib']:.0f}")
        updates = (f"{bare_s * 1e3:.1f} ms", f"{full_s * 1e3:.1f} ms", f"{full_s / bare_s:.2f}")
        typical = (f"{row['typical_link_ends']:,}", f"{row['typical_update_s'] * 1e3:.1f} ms")
        counters = f"{row['counters_s'] * 1e3:.1f} ms"
        shown.add_row(
            *(f"{row[key]:,}" for key in ("satellites", "link_ends")),
            *(*build, *updates, *typical, counters, f"{row['teardown_s']:.1f} s"),
        )
    return shown


def main() -> None:
    """Measure, print, and write the figures after each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="66,1584,2800", help=f"of {', '.join(map(str, PLANES))}")
    parser.add_argument("--json", type=Path, help="file for the figures, with a description of the machine")
    options = parser.parse_args()
    figures: list[dict[str, Any]] = []
    for size in map(int, options.sizes.split(",")):
        figures.append(grown(size))
        if options.json:
            options.json.write_text(json.dumps({"machine": kernel_facts(), "sizes": figures}, indent=2) + "\n")
    Console(width=160).print(table(figures))


if __name__ == "__main__":
    main()
