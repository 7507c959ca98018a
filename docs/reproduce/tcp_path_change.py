"""A TCP flow from Manila to Dalian while its path changes: 10 Mbit/s, queues of 100 packets, as Hypatia had it."""

from __future__ import annotations

import argparse
import csv
from importlib.resources import files
from pathlib import Path
from typing import Any

import isl_emu
from isl_emu.files import tomllib

HERE = Path(__file__).parent
A, B = "gs-manila", "gs-dalian"
RATE_BIT_S = 10e6
SEGMENT_BYTE = 1380
PACKET_BYTE = SEGMENT_BYTE + 66  # with timestamps and headers of TCP, IP and Ethernet
QUEUE_PACKETS = 100
SLOW_START_S = 2.0
CHANGES_S = (18, 28)  # the path becomes shorter, and longer: docs/reproduce/hypatia_rtt.py
OPEN, RECOVERY = (0, 1), 3  # of tcpi_ca_state, RECOVERY where packets are held to be lost

Row = dict[str, float]


def main() -> None:
    """Run, and print the window's peaks beside Hypatia's line "BDP+Q", and what each change of the path did."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results/tcp"), help="folder for the run's results")
    parser.add_argument("--control", default="reno", help="reno, vegas, cubic or bbr")
    parser.add_argument("--duration", type=int, default=40, help="seconds; 30 or more hold two changes of the path")
    options = parser.parse_args()
    run = isl_emu.run("kuiper-630", out=options.out, progress=True, **_changes(options.control, options.duration))
    if not run.valid:
        raise SystemExit(f"the run is invalid: {run.reasons}")
    start_s = run.scenario.time.start.timestamp()
    with (options.out / "files" / A / "flow.csv").open(encoding="utf-8") as lines:
        rows = [{name: float(text) for name, text in row.items()} for row in csv.DictReader(lines)]
    for row in rows:
        row["t_s"] = row["unix_s"] - start_s
    rtt_ms = 2 * isl_emu.plan(run.scenario).path_delay_ns(A, B) / 1e6
    print(f"{'t (s)':>6}  {'RTT (ms)':>8}  {'BDP+Q':>6}  {'window':>6}  {'difference':>10}")
    for before, after in zip(rows, rows[1:]):
        lost = before["state"] in OPEN and after["state"] == RECOVERY and before["t_s"] > SLOW_START_S
        if lost and not any(t_s <= before["t_s"] < t_s + 1 for t_s in CHANGES_S):
            now_ms = float(rtt_ms[int(before["t_s"])])
            # plot_time_vs_tcp_cwnd_and_bdp_plus_queue_pair_b.plt of Hypatia's repository
            theirs = now_ms / 1e3 * RATE_BIT_S / 8 / SEGMENT_BYTE + QUEUE_PACKETS
            ours = before["window"]
            print(f"{before['t_s']:6.2f}  {now_ms:8.2f}  {theirs:6.1f}  {ours:6.0f}  {ours - theirs:10.1f}")
    heads = f"{'overtaken':>9}  {'sent again':>10}  {'needlessly':>10}"
    print(f"{'t (s)':>6}  {'RTT (ms)':>14}  {'Mbit/s':>12}  {'window':>9}  {heads}")
    for t_s in CHANGES_S:
        if t_s < options.duration - 1:
            _print_change(rows, t_s, f"{rtt_ms[t_s - 1]:.2f} -> {rtt_ms[t_s]:.2f}")


def _print_change(rows: list[Row], t_s: float, rtt_ms: str) -> None:
    """Print what TCP did in the second after a change of the path, and its goodput in the 5 s before and after."""
    before = [row for row in rows if t_s - 5 <= row["t_s"] < t_s]
    after = [row for row in rows if t_s <= row["t_s"] < t_s + 5]
    at_once = [row for row in after if row["t_s"] < t_s + 1]
    rates = f"{_goodput(before):.2f} -> {_goodput(after):.2f}"
    window = f"{before[-1]['window']:.0f} -> {min(row['window'] for row in at_once):.0f}"
    counts = [at_once[-1][name] - before[-1][name] for name in ("reordered", "sent_again", "duplicates")]
    print(f"{t_s:6}  {rtt_ms:>14}  {rates:>12}  {window:>9}  {counts[0]:9.0f}  {counts[1]:10.0f}  {counts[2]:10.0f}")


def _goodput(rows: list[Row]) -> float:
    return (rows[-1]["acked_byte"] - rows[0]["acked_byte"]) * 8e-6 / (rows[-1]["t_s"] - rows[0]["t_s"])


def _changes(control: str, duration_s: float) -> dict[str, Any]:
    """kuiper-630 with Hypatia's rates and queues, and the flow instead of probes, which would wait behind it."""
    kuiper = tomllib.loads((files("isl_emu") / "topologies" / "kuiper-630.toml").read_text())
    rate, queue = f"{RATE_BIT_S:.0f} bit/s", f"{QUEUE_PACKETS * PACKET_BYTE * 8 / RATE_BIT_S * 1e3} ms"
    kuiper["shell"][0]["lasers"].update(rate=rate, queue=queue)
    for station in kuiper["station"]:
        station.update(uplink=rate, downlink=rate, queue=queue)
    send = ["python3", str(HERE / "tcp_flow.py"), "send", B, "flow.csv", str(duration_s - 0.2)]
    return {
        "time": {"duration": f"{duration_s} s", "clock": "exact"},
        "shell": kuiper["shell"],
        "station": kuiper["station"],
        "probes": None,
        "node": [{"nodes": [A, B], "congestion_control": control}],
        "program": [
            {"name": "receiver", "node": B, "command": ["python3", str(HERE / "tcp_flow.py"), "receive"]},
            {"name": "sender", "node": A, "at": "0.1 s", "command": send},
        ],
    }


main()
