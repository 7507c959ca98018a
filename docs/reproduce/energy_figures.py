"""Nights of BUPT-1, whose board infers in orbit, beside those of our model of the Sun; bupt1.toml has the sources."""

from __future__ import annotations

import argparse
import csv
import gzip
from pathlib import Path
from statistics import median

import isl_emu

SCENARIO = Path(__file__).with_name("bupt1.toml")
LOADS = ("LOW", "MIDDLE", "HIGH")
# Medians of six nights and of six spans from nightfall to nightfall, in three runs of inference in June and July 2023,
# by the currents of the panels every 10 s
NIGHT_MIN, PERIOD_MIN = 34.8, 94.0


def main() -> None:
    """Print a row for each local time of the node: the night as measured, ours, the difference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder with a copy of the data, to work both out anew")
    options = parser.parse_args()
    night_min, period_min = _measured_min(options.data) if options.data else (NIGHT_MIN, PERIOD_MIN)
    print(f"measured: night {night_min:.1f} min of {period_min:.1f} min")
    balance = isl_emu.power_balance(SCENARIO, duration_s=86_400, step_s=10)
    print(f"{'local time of the node':<22}  {'measured (min)':>14}  {'ours (min)':>10}  {'difference (min)':>16}")
    for shell, row in zip(isl_emu.load(SCENARIO).shell, balance.satellites.to_pylist()):
        ours_min = row["eclipse_ratio"] * period_min
        print(f"{shell.name:<22}  {night_min:14.1f}  {ours_min:10.1f}  {ours_min - night_min:16.1f}")


def _measured_min(data: Path) -> tuple[float, float]:
    """Night and period in the data: from the last current of the panels to the first, and to the next last one."""
    nights, periods = [], []
    for load in LOADS:
        with gzip.open(data / f"bupt1_inference_{load}_1T_10s.csv.gz", "rt") as lines:
            rows = list(csv.DictReader(lines))
        lit = [(int(row["TIME"]), float(row["MPPT1_Iin"]) + float(row["MPPT2_Iin"]) > 0) for row in rows]
        falls = [before[0] for before, after in zip(lit, lit[1:]) if before[1] and not after[1]]
        rises = [after[0] for before, after in zip(lit, lit[1:]) if after[1] and not before[1]]
        nights += [min(later) - fall for fall in falls if (later := [rise for rise in rises if rise > fall])]
        periods += [later - fall for fall, later in zip(falls, falls[1:])]
    return median(nights) / 60, median(periods) / 60


main()
