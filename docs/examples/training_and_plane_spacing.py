"""How long a training step takes, against the spacing of the orbital planes whose satellites train together.

Eight satellites in eight planes, side by side at the equator, sum two gigabytes of gradients after each step, in a ring
or over a tree. Dots are emulated (medians of the run), dashed lines are what rates and delays of the plan allow.

    python docs/examples/training_and_plane_spacing.py --out results/training          (six minutes)
    python docs/examples/training_and_plane_spacing.py --out results/training --quick  (one run)
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import isl_emu

SCENARIO = Path(__file__).with_name("training_and_plane_spacing.toml")
PLANES = 8
SPACINGS_DEG = (1, 5, 10, 15, 20)
COLLECTIVES = ("ring", "tree")


@dataclass(frozen=True)
class Point:
    """One setting of the sweep: medians over the steps of its run."""

    collective: str
    spacing_deg: int
    steps: int
    step_s: float
    compute_s: float
    predicted_sum_s: float  # of the gradients, by rates and delays alone
    valid: bool


def point(folder: Path, collective: str, spacing_deg: int) -> Point:
    """Run one setting."""
    base, name = isl_emu.load(SCENARIO), f"{collective}-{spacing_deg}-deg"
    shell = base.shell[0].model_dump(by_alias=True, exclude_none=True)
    shell["walker"]["raan_spread"] = f"{PLANES * spacing_deg} deg"
    job = base.training[0].model_dump(by_alias=True, exclude_none=True)
    job["collective"] = collective
    run = isl_emu.run(base, out=folder / name, shell=[shell], training=[job])
    print(f"{name}: {'valid' if run.valid else 'INVALID ' + '; '.join(run.reasons)}", flush=True)
    steps = [row for row in run.table("training").to_pylist() if row["outcome"] == "completed"]
    if not steps:
        raise SystemExit(f"{name}: no step was completed, see {run.path}")
    step_ns = np.median([row["t_end_ns"] - row["t_start_ns"] for row in steps])
    compute_ns = np.median([max(row["compute_ns"]) for row in steps])
    predicted_ns = np.median([row["predicted_ns"] for row in steps])
    seconds = [float(value_ns) / 1e9 for value_ns in (step_ns, compute_ns, predicted_ns)]
    return Point(collective, spacing_deg, len(steps), *seconds, run.valid)


def draw(points: list[Point], path: Path) -> None:
    """One curve for each way of summing."""
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for collective in dict.fromkeys(point.collective for point in points):
        own = [point for point in points if point.collective == collective]
        degrees = [point.spacing_deg for point in own]
        (line,) = axes.plot(degrees, [point.compute_s + point.predicted_sum_s for point in own], "--", alpha=0.7)
        axes.plot(degrees, [point.step_s for point in own], "o", color=line.get_color(), label=collective)
    axes.axhline(points[0].compute_s, color="grey", linewidth=1)
    axes.text(degrees[0], points[0].compute_s, "computing alone", va="bottom", color="grey")
    axes.set(xlabel="spacing of the planes (deg)", ylabel="training step (s)")
    axes.set_ylim(bottom=0)
    axes.set_title("Dots: emulated. Dashed: computing, rates and delays alone", fontsize=10)
    axes.legend(title="gradients summed by")
    figure.savefig(path, dpi=120)


def main() -> None:
    """Sweep, write points.parquet and picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="new folder for the runs, the table and the picture")
    parser.add_argument("--quick", action="store_true", help="one run only")
    options = parser.parse_args()
    collectives, spacings = (COLLECTIVES[:1], (10,)) if options.quick else (COLLECTIVES, SPACINGS_DEG)
    points = [point(options.out, collective, degrees) for collective in collectives for degrees in spacings]
    pq.write_table(pa.Table.from_pylist([asdict(point) for point in points]), options.out / "points.parquet")
    draw(points, options.out / "training_and_plane_spacing.png")
    for row in points:
        print(row)


if __name__ == "__main__":
    main()
