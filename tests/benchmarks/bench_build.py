"""Where building a constellation takes its time, and what the bare kernel takes for the same: each in a fresh guest.

    python tests/benchmarks/bench_build.py [--sizes 1000,2800,10000] [--rounds 1]

The floor sends the very messages that the network is made of, ready-made, from the plainest loop: namespaces, veth
pairs, then the rest (qdiscs, policers, addresses, neighbours, interfaces up). A kernel that has just deleted thousands
of namespaces makes the next ones more slowly, so each figure is of a guest of its own. The fastest round counts.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from isl_emu.linkplan.plan import LinkPlan
from isl_emu.network import kernel, net
from isl_emu.runs.directory import create_run_directory

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.benchmarks.bench_network import floor_build, torus  # noqa: E402
from tests.plans import make_plan  # noqa: E402

PLANES = {66: 6, 1000: 20, 1584: 72, 2800: 50, 4408: 58, 10000: 100}
STAGES = ("namespaces", "links", "the rest", "carriers", "whole")


def torus_plan(size: int) -> LinkPlan:
    """A +Grid that stays as it is."""
    return make_plan(size, (), [torus(PLANES[size], size // PLANES[size])])


def floor(size: int) -> dict[str, float]:
    """The bare kernel: seconds by stage."""
    return floor_build(torus_plan(size))


def ours(size: int) -> dict[str, float]:
    """What a run does: seconds by stage."""
    plan, took = torus_plan(size), dict[str, float]()

    def timed(name: str, function: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **named: object) -> object:
            begun = time.perf_counter()
            result = function(*arguments, **named)
            took[name] = time.perf_counter() - begun
            return result

        return call

    kernel.make_spaces = timed("namespaces", kernel.make_spaces)
    made = kernel.KernelBackend
    made._make_all_links = timed("links", made._make_all_links)
    made._await_carriers = timed("carriers", made._await_carriers)
    made._build = timed("backend", made._build)
    begun = time.perf_counter()
    net.IslNet(plan, create_run_directory())
    took["whole"] = time.perf_counter() - begun
    took["the rest"] = took["backend"] - took["namespaces"] - took["links"] - took["carriers"]
    return took


def in_fresh_guest(size: int, what: str) -> dict[str, float]:
    """The stages' seconds of one building in a guest that is made for it."""
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder, "stages.json")
        guest = [sys.executable, "-m", "isl_emu.machine.guest", "--writable", folder, "--"]
        own = [
            sys.executable,
            str(Path(__file__).resolve()),
            "--inside",
            what,
            "--sizes",
            str(size),
            "--kept",
            str(kept),
        ]
        subprocess.run([*guest, *own], check=True)
        took: dict[str, float] = json.loads(kept.read_text())
        return took


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="1000,2800", help=f"of {', '.join(map(str, PLANES))}")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--inside", choices=("floor", "ours"), help=argparse.SUPPRESS)
    parser.add_argument("--kept", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    sizes = [int(size) for size in options.sizes.split(",")]
    if options.inside:
        options.kept.write_text(json.dumps({"floor": floor, "ours": ours}[options.inside](sizes[0])))
        return
    shown = Table("satellites", "built by", *STAGES, "x floor", title="Build, s")
    for size in sizes:
        rounds = [[in_fresh_guest(size, what) for what in ("floor", "ours")] for _ in range(options.rounds)]
        least = [min(same, key=lambda took: took["whole"]) for same in zip(*rounds, strict=True)]
        for name, took in zip(("the bare kernel", "isl-emu"), least, strict=True):
            figures = (f"{took[stage]:.2f}" if stage in took else "" for stage in STAGES)
            shown.add_row(f"{size:,}", name, *figures, f"{took['whole'] / least[0]['whole']:.2f}")
    Console(width=120).print(shown)


if __name__ == "__main__":
    main()
