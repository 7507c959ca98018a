"""What a hand-over costs a TCP upload: without warning, with one, and where it takes no time; exact time."""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import isl_emu

SCENARIO = Path(__file__).with_name("handover.toml")
DISH = "dish-unwarned"
SENDERS = ("unwarned", "warned", "instant")
PACKET_BYTE = 1380 + 66  # with timestamps and headers of TCP, IP and Ethernet
HANDOVERS_S = (12, 27)
SETTLED_S = 5.0  # slow start is over


def main() -> None:
    """Run, and print a row for each hand-over of each sender, and the goodput of each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results/handover"), help="folder for the run's results")
    parser.add_argument("--duration", default="30 s", help="14 s or more hold one hand-over, 29 s two")
    options = parser.parse_args()
    run = isl_emu.run(SCENARIO, out=options.out, progress=True, time={"duration": options.duration})
    if not run.valid:
        raise SystemExit(f"the run is invalid: {run.reasons}")
    plan = isl_emu.plan(run.scenario)
    start_s = run.scenario.time.start.timestamp()
    station = {station.name: station for station in run.scenario.station}[DISH]
    rate_bit_s, gap_s = station.uplink_bit_s, station.handover_gap_ns / 1e9
    print(f"LeoEM's outage, 3 x (old + new delay): {_leoem_gap_ms(plan):.1f} ms; ours {gap_s * 1e3:.0f} ms")
    print(f"what the link carries in that time: {rate_bit_s * gap_s / 8 / PACKET_BYTE:.1f} packets")
    print(f"{'sender':>8}  {'t (s)':>5}  {'lost':>4}  {'window':>8}  {'again as large after (s)':>24}")
    for sender in SENDERS:
        with (options.out / "files" / sender / "flow.csv").open(encoding="utf-8") as lines:
            rows = [{name: float(text) for name, text in row.items()} for row in csv.DictReader(lines)]
        for row in rows:
            row["t_s"] = row["unix_s"] - start_s
        for t_s in HANDOVERS_S:
            if t_s < rows[-1]["t_s"] - 1:
                _print_handover(sender, rows, t_s)
        settled = [row for row in rows if row["t_s"] >= SETTLED_S]
        acked_bit = 8 * (settled[-1]["acked_byte"] - settled[0]["acked_byte"])
        rate = acked_bit / (settled[-1]["t_s"] - settled[0]["t_s"]) / 1e6
        print(f"{sender:>8}  {rate:.2f} Mbit/s from {SETTLED_S:.0f} s on")


def _print_handover(sender: str, rows: list[dict[str, float]], t_s: float) -> None:
    """Print what the sender sent again within half a second, its window, and how long it took to be as large again."""
    before = [row for row in rows if row["t_s"] < t_s - 0.2][-1]
    after = [row for row in rows if t_s <= row["t_s"] < t_s + 15]
    least = min((row for row in after if row["t_s"] < t_s + 0.5), key=lambda row: row["window"])
    lost = [row for row in after if row["t_s"] < t_s + 0.5][-1]["sent_again"] - before["sent_again"]
    again = [row["t_s"] - t_s for row in after if row["t_s"] >= least["t_s"] and row["window"] >= before["window"]]
    took = f"{again[0]:.2f}" if again else "-"
    print(f"{sender:>8}  {t_s:5}  {lost:4.0f}  {before['window']:.0f} -> {least['window']:.0f}  {took:>24}")


def _leoem_gap_ms(plan: isl_emu.Plan) -> float:
    """LeoEM's formula at the hand-over of second 12: three times the dish's delay to the satellite before and after."""
    delays_ms = []
    for t_s in (11.9, 12.1):
        k = round(t_s * 1e9 / plan.scenario.time.step_ns)
        satellite = plan.path(DISH, "gateway", k).nodes[1]
        delays_ms.append(float(plan.path_delay_ns(DISH, satellite)[k]) / 1e6)
    return 3 * sum(delays_ms)


main()
