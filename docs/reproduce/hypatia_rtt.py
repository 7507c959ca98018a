"""Hypatia's published round trips from Manila to Dalian beside ours, measured by packets: kuiper-630 in exact time."""

from __future__ import annotations

import argparse
from importlib.resources import files
from pathlib import Path

import isl_emu
from isl_emu.files import tomllib

A, B = "gs-manila", "gs-dalian"


def main() -> None:
    """Run, and print a row for each whole second of which Hypatia published the round trip."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results/hypatia"), help="folder for the run's results")
    parser.add_argument("--duration", default="200 s")
    options = parser.parse_args()
    probes = {"pairs": [[A, B]], "interval": "1 s"}
    run = isl_emu.run(
        "kuiper-630",
        out=options.out,
        time={"duration": options.duration, "clock": "exact"},
        probes=probes,
        progress=True,
    )
    if not run.valid:
        raise SystemExit(f"the run is invalid: {run.reasons}")
    ours_ms: dict[int, list[float]] = {}
    for probe in run.probes.to_pylist():
        ours_ms.setdefault(probe["t_send_ns"] // 10**9, []).append(probe["delay_ns"] / 1e6)
    published = tomllib.loads((files("isl_emu.validate") / "kuiper_630.toml").read_text())["rtt_ms"]["manila-dalian"]
    print(f"{'t (s)':>6}  {'Hypatia (ms)':>12}  {'packets (ms)':>12}  {'difference (us)':>15}")
    for row in published:
        if row["t_s"] in ours_ms:  # both directions, in the second that begins then
            rtt_ms = sum(ours_ms[row["t_s"]])
            difference_us = (rtt_ms - row["rtt_ms"]) * 1e3
            print(f"{row['t_s']:6.0f}  {row['rtt_ms']:12.6f}  {rtt_ms:12.6f}  {difference_us:15.3f}")


main()
