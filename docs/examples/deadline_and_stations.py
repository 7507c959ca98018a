"""How many answers come in time, against the number of ground stations and how high a satellite must stand.

Twelve satellites in one plane answer the users of one or four stations, who together always ask equally much. A
station that only tracks satellites high above the horizon sees one for a part of the time; and fewer stations send the
same load to fewer satellites, since each asks the nearest. Dots are emulated; dashed lines say for how much of the same
time the plan has a path at all, so what lies between them is queueing.

    python docs/examples/deadline_and_stations.py --out results/deadline          (ten minutes)
    python docs/examples/deadline_and_stations.py --out results/deadline --quick  (one run)
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import isl_emu

SCENARIO = Path(__file__).with_name("deadline_and_stations.toml")
CITIES = ("chengdu", "sanya", "miyun", "hangzhou")
COUNTS = (1, 4)  # how many of the cities have a station
ELEVATIONS_DEG = (10, 20, 30)
PERIOD = timedelta(seconds=475)  # after which the next satellite of the plane stands where one stood
PHASES = (0, 1 / 3, 2 / 3)  # of the period, at which runs begin


@dataclass(frozen=True)
class Point:
    """One setting of the sweep, and what came of it."""

    stations: int
    elevation_deg: int
    planned_ratio: float  # of the time in which questions are asked, with a path to the satellites
    asked: int
    in_time: int
    valid_runs: int
    runs: int

    @property
    def in_time_ratio(self) -> float:
        """Share of the questions that were answered within the deadline."""
        return self.in_time / self.asked


def stations(count: int, elevation_deg: int) -> list[dict]:
    """The scenario's stations: the first `count` cities."""
    radio = {"min_elevation": f"{elevation_deg} deg", "antennas": 1, "uplink": "10 Gbit/s", "downlink": "10 Gbit/s"}
    return [{"name": f"gs-{city}", "site": city, **radio} for city in CITIES[:count]]


def planned_ratio(run: isl_emu.RunResults) -> float:
    """For how much of the time of its questions a run's stations had a path to the satellites, in the mean."""
    plan, scenario = isl_emu.read_plan(run.path / "plan.parquet"), run.scenario
    asking = scenario.time.grid.offsets_ns < scenario.questions.stop_after_ns
    satellite = scenario.satellite_names[0]  # the ring carries questions on to any other, so one stands for all
    delays = [plan.path_delay_ns(name, satellite)[asking] for name in scenario.station_names]
    return 1 - float(np.mean([np.ma.getmaskarray(delay_ns).mean() for delay_ns in delays]))


def point(folder: Path, count: int, elevation_deg: int, phases: tuple[float, ...]) -> Point:
    """Run one setting, at each phase of the period."""
    base, runs = isl_emu.load(SCENARIO), []
    for phase in phases:
        name = f"{count}-stations-{elevation_deg}-deg-{phase:.2f}"
        start = {"start": base.time.start + phase * PERIOD}
        runs.append(isl_emu.run(base, out=folder / name, station=stations(count, elevation_deg), time=start))
        print(f"{name}: {'valid' if runs[-1].valid else 'INVALID ' + '; '.join(runs[-1].reasons)}", flush=True)
    met = [row for run in runs for row in run.requests["deadline_met"].to_pylist()]
    planned = float(np.mean([planned_ratio(run) for run in runs]))
    return Point(count, elevation_deg, planned, len(met), sum(met), sum(run.valid for run in runs), len(runs))


def draw(points: list[Point], path: Path) -> None:
    """One curve for each number of stations."""
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for count in sorted({point.stations for point in points}):
        own = [point for point in points if point.stations == count]
        degrees = [point.elevation_deg for point in own]
        (line,) = axes.plot(degrees, [point.planned_ratio for point in own], "--", alpha=0.7)
        label = f"{count} station{'s' if count > 1 else ''}"
        axes.plot(degrees, [point.in_time_ratio for point in own], "o", color=line.get_color(), label=label)
    axes.set(xlabel="least elevation (deg)", ylabel="share of questions answered in time", ylim=(0, 1.05))
    axes.set_title("Dots: emulated. Dashed: share of the time with a path, by the plan", fontsize=10)
    axes.legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    """Sweep, write points.parquet and picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="new folder for the runs, the table and the picture")
    parser.add_argument("--quick", action="store_true", help="one run only")
    options = parser.parse_args()
    counts, elevations, phases = ((1,), (10,), PHASES[2:]) if options.quick else (COUNTS, ELEVATIONS_DEG, PHASES)
    points = [point(options.out, count, degrees, phases) for count in counts for degrees in elevations]
    rows = [{**asdict(point), "in_time_ratio": point.in_time_ratio} for point in points]
    pq.write_table(pa.Table.from_pylist(rows), options.out / "points.parquet")
    draw(points, options.out / "deadline_and_stations.png")
    for row in rows:
        print(row)


if __name__ == "__main__":
    main()
