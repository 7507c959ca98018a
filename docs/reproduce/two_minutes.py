"""The published two minutes from a question to its answer in orbit, and where the time goes here."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import isl_emu

PUBLISHED_S = 120.0  # a bound: question up, inference in orbit, answer down


def main() -> None:
    """Run, and print how long answers took, the slowest in its parts, and how long one may be in two minutes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenario", nargs="?", default="three-body", help="or qwen3-uplink")
    parser.add_argument("--out", type=Path, default=Path("results/two-minutes"), help="folder for the run's results")
    options = parser.parse_args()
    run = isl_emu.run(options.scenario, out=options.out, progress=True, time={"clock": "exact"})
    if not run.valid:
        raise SystemExit(f"the run is invalid: {run.reasons}")
    answers = [row for row in run.requests.to_pylist() if row["outcome"] == "completed"]
    e2e_s = np.array([row["e2e_ns"] for row in answers]) / 1e9
    print(f"published: within {PUBLISHED_S:.0f} s")
    in_time = (e2e_s <= PUBLISHED_S).sum()
    print(
        f"{run.scenario.name}: {len(answers)} of {run.requests.num_rows} answered, {in_time} within {PUBLISHED_S:.0f} s"
    )
    print(f"from asking to the last word: {np.median(e2e_s):.2f} s (p50), {e2e_s.max():.2f} s (longest)")
    slowest = answers[int(e2e_s.argmax())]
    words_s = slowest["tpot_ns"] * (slowest["answer_tokens"] - 1) / 1e9
    first_s, network_s = slowest["ttft_ns"] / 1e9, slowest["network_ns"] / 1e9
    print(
        f"the longest: {network_s:.3f} s network, {first_s - network_s:.3f} s until the first word, "
        f"{words_s:.3f} s for {slowest['answer_tokens']} tokens"
    )
    pace_s = float(np.median([row["tpot_ns"] for row in answers])) / 1e9
    tokens = (PUBLISHED_S - first_s) / pace_s
    print(f"at its pace of {1 / pace_s:.1f} tokens/s an answer of {tokens:.0f} tokens takes the published time")
    if "deliveries" in run.tables:
        served_s = min(run.table("deliveries")["t_serving_ns"].drop_null().to_pylist()) / 1e9
        print(f"with the model's upload before it: {served_s + e2e_s.max():.1f} s after the run's start")


main()
