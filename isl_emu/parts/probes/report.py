"""The section on delays: what the plan says, and what the probes measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from isl_emu.tables.distribution import Distribution
from isl_emu.tables.text import table, time_text

Rows = Sequence[Mapping[str, Any]]


def delays_section(probes: Rows) -> Iterator[str]:
    yield "DELAY ONE WAY  (medians of the probes; those during a change are left out)"
    pairs: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in probes:
        pairs.setdefault((row["a"], row["b"]), []).append(row)
    header = ("from, to", "hops", "planned", "measured", "off by", "p95", "probes", "lost", "no path")
    yield from table(header, [_delay_row(pair, rows) for pair, rows in pairs.items()], left=1)


def _delay_row(pair: tuple[str, str], rows: Rows) -> tuple[str, ...]:
    steady = [row for row in rows if not row["straddles_change"]]
    good = [row for row in steady if row["error_ns"] is not None]
    error = Distribution.of(abs(row["error_ns"]) for row in good)
    hops = sorted({row["hops"] for row in good})
    return (
        f"{pair[0]} → {pair[1]}",
        "-" if not hops else str(hops[0]) if len(hops) == 1 else f"{hops[0]}-{hops[-1]}",
        time_text(Distribution.of(row["planned_delay_ns"] for row in good).p50),
        time_text(Distribution.of(row["delay_ns"] for row in good).p50),
        time_text(error.p50),
        time_text(error.p95),
        str(len(steady)),
        str(sum(row["delay_ns"] is None and row["planned_delay_ns"] is not None for row in steady)),
        str(sum(row["planned_delay_ns"] is None for row in steady)),
    )
