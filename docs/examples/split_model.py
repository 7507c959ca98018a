"""Tokens per second of one answer, against the number of satellites over which the model is split.

The layers of SmolLM2 lie on k neighbours of a ring, 11.9 ms apart. Dots are emulated (the median token), dashed lines
are the computing as measured plus what the plan says of the network. Needs the libraries of the engines: docs/split.md.

    python docs/examples/split_model.py --out results/split          (ten minutes)
    python docs/examples/split_model.py --out results/split --quick  (one run)
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

SCENARIO = Path(__file__).with_name("split_model.toml")
ENGINES = ("pipeline", "llama-rpc")
SATELLITES = (2, 3, 4)


@dataclass(frozen=True)
class Point:
    """One setting of the sweep: medians over the tokens of its run."""

    engine: str
    satellites: int
    passes: int
    token_s: float
    computing_s: float
    predicted_s: float
    byte_per_token: float  # on all lasers between the satellites of the model
    valid: bool


def point(folder: Path, engine: str, satellites: int) -> Point:
    """Run one setting."""
    base, name = isl_emu.load(SCENARIO), f"{engine}-{satellites}-satellites"
    split = {"satellites": [f"p00s{slot:02}" for slot in range(satellites)], "engine": engine}
    run = isl_emu.run(base, out=folder / name, split=[split])
    print(f"{name}: {'valid' if run.valid else 'INVALID ' + '; '.join(run.reasons)}", flush=True)
    passes = [row for row in run.table("split").to_pylist() if row["kind"] != "prompt"]
    if not passes:
        raise SystemExit(f"{name}: no token came around, see {run.path}")
    seconds = [float(np.median([row[key] for row in passes])) / 1e9 for key in ("loop_ns", "predicted_ns")]
    computing_s = float(np.median([sum(row["compute_ns"]) for row in passes])) / 1e9
    size_byte = float(np.median([sum(row["hop_byte"]) for row in passes]))
    return Point(engine, satellites, len(passes), seconds[0], computing_s, seconds[1], size_byte, run.valid)


def draw(points: list[Point], path: Path) -> None:
    """One curve for each engine."""
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for engine in dict.fromkeys(point.engine for point in points):
        own = [point for point in points if point.engine == engine]
        count = [point.satellites for point in own]
        (line,) = axes.plot(count, [1 / point.predicted_s for point in own], "--", alpha=0.7)
        axes.plot(count, [1 / point.token_s for point in own], "o", color=line.get_color(), label=engine)
    axes.set(xlabel="satellites that hold the model", ylabel="tokens/s of one answer", xticks=SATELLITES)
    axes.set_ylim(bottom=0)
    axes.set_title("Dots: emulated. Dashed: computing as measured, network as planned", fontsize=10)
    axes.legend(title="engine")
    figure.savefig(path, dpi=120)


def main() -> None:
    """Sweep, write points.parquet and picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="new folder for the runs, the table and the picture")
    parser.add_argument("--engine", choices=ENGINES, help="only this one; both without it")
    parser.add_argument("--quick", action="store_true", help="one run only")
    options = parser.parse_args()
    engines = (options.engine,) if options.engine else ENGINES
    settings = [(engine, count) for engine in engines for count in SATELLITES]
    points = [point(options.out, *setting) for setting in (settings[:1] if options.quick else settings)]
    pq.write_table(pa.Table.from_pylist([asdict(point) for point in points]), options.out / "points.parquet")
    draw(points, options.out / "split_model.png")
    for row in points:
        print(row)


if __name__ == "__main__":
    main()
