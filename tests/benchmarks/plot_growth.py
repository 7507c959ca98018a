"""Draws what bench_growth.py measured: python tests/benchmarks/plot_growth.py growth.json growth.png

A guest does not see the machine that it runs on, so this machine's description is added to the figures.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")

from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402

from isl_emu.results.provenance import kernel_facts  # noqa: E402

PANELS = (
    ("build, s", {"build_s": "isl-emu", "floor_build_s": "bare kernel calls"}, 1),
    ("memory, GiB", {"memory_mib": "isl-emu"}, 1 / 1024),
    (
        "update, ms",
        {"full_update_s": "all ends", "floor_update_s": "all ends, bare messages", "typical_update_s": "one second's"},
        1e3,
    ),
)


def draw(found: dict[str, Any], path: Path) -> None:
    """Three panels over the number of satellites."""
    figure, axes = plt.subplots(1, len(PANELS), figsize=(11, 3.6), layout="constrained")
    for axis, (title, lines, scale) in zip(axes, PANELS, strict=True):
        _panel(axis, found["sizes"], title, lines, scale)
    around, within = found["around"], found["machine"]
    figure.suptitle(
        f"{around['cpu_model']}, {around['cpus']} CPUs, Linux {around['kernel']}; "
        f"network on Linux {within['kernel']}, {within['cpus_usable']} CPUs",
        fontsize=9,
    )
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _panel(axis: Axes, sizes: Sequence[dict[str, Any]], title: str, lines: dict[str, str], scale: float) -> None:
    satellites = [row["satellites"] for row in sizes]
    for (key, name), style in zip(lines.items(), ("o-", "s--", "^:"), strict=False):
        axis.plot(satellites, [row[key] * scale for row in sizes], style, label=name)
    axis.set(title=title, xlabel="satellites", ylim=(0, None))
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)


def main(figures: Path, picture: Path) -> None:
    """Complete the figures and draw them."""
    found = {"around": kernel_facts(), **json.loads(figures.read_text())}
    figures.write_text(json.dumps(found, indent=2) + "\n")
    draw(found, picture)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
