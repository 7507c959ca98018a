"""Power: Sun, batteries and radiators decide how fast satellites may compute."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from isl_emu.parts.activity import Activity
from isl_emu.parts.finished_run import ConcludedRun, FinishedRun
from isl_emu.parts.live_run import LiveRun
from isl_emu.parts.part import Event, Pace, Part, Source
from isl_emu.parts.power.governor import JOURNAL, Governing
from isl_emu.parts.power.results import ENERGY, EnergyTotals, energy_section, energy_totals, write_energy
from isl_emu.runs.journal import REQUESTS_JOURNAL, read_latest
from isl_emu.show.chapter import Chapter
from isl_emu.units import NS_PER_S

FIGURES = "energy.json"  # in the run folder


class PowerPart(Part):
    key = "power"
    lines = {JOURNAL: ENERGY}
    orders = {JOURNAL: ("t_ns", "satellite")}
    watched, watched_live = (JOURNAL,), (JOURNAL,)

    def one_guest(self, source: Source) -> Iterable[str]:
        return ()

    def start(self, live: LiveRun) -> Iterable[Activity]:
        if live.scenario.power:
            yield Governing(live)

    def status(self, *journals: Path) -> Iterable[str]:
        if energy := [row for journal in journals for row in read_latest(journal / f"{JOURNAL}.jsonl")]:
            modes = Counter({row["satellite"]: row["mode"] for row in energy}.values())
            yield f"satellites with power: {', '.join(f'{count} {mode}' for mode, count in modes.most_common())}"

    def conclude(self, run: FinishedRun) -> None:
        if totals := _totals(run):
            write_energy(run.folder.path / FIGURES, totals)

    def pace(self, run: FinishedRun) -> Pace | None:
        energy = run.table(JOURNAL)
        return AllowedPace(energy).mean_ratio if energy is not None and energy.num_rows else None

    def sections(self, run: FinishedRun, figures: Mapping[str, Any]) -> Iterator[Iterable[str]]:
        if totals := _totals(run):
            yield energy_section(totals)

    def events(self, table: str, row: Mapping[str, Any]) -> Iterable[Event]:
        """What the satellite's computer may do from then on."""
        yield {"t_s": row["t_ns"] / NS_PER_S, "type": "server", "node": row["satellite"], "state": row["mode"]}

    def chapters(self, run: ConcludedRun) -> Iterator[Chapter]:
        from isl_emu.parts.power.chapters import power_chapter  # which draws; that is slow to import

        return power_chapter(run)


def _totals(run: FinishedRun) -> Mapping[str, EnergyTotals]:
    """What the energy came to; empty for a run without power, or that ended before it began."""
    energy = run.table(JOURNAL)
    if energy is None or not energy.num_rows:
        return {}
    return energy_totals(energy, run.rows(REQUESTS_JOURNAL), run.scenario)


class AllowedPace:
    """At what pace energy and heat let each satellite's computer work: 1 where the energy table has no row of it.

    Args:
        table: energy.parquet, if there is one.
    """

    def __init__(self, table: pa.Table | None):
        self._rows: dict[str, tuple[np.ndarray, ...]] = {}  # when its intervals began and ended, and their paces
        if table is None:
            return
        names = table.column("satellite").combine_chunks().cast(pa.string()).dictionary_encode()
        codes, end_ns = names.indices.to_numpy(), table.column("t_ns").to_numpy()
        columns = end_ns - table.column("interval_ns").to_numpy(), end_ns, table.column("pace_ratio").to_numpy()
        order = np.argsort(codes, kind="stable")
        for part in np.split(order, np.flatnonzero(np.diff(codes[order])) + 1):
            self._rows[names.dictionary[int(codes[part[0]])].as_py()] = tuple(column[part] for column in columns)

    def mean_ratio(self, satellite: str, from_ns: int, to_ns: int) -> float:
        """The mean pace of a satellite between two times."""
        if satellite not in self._rows or to_ns <= from_ns:
            return 1.0
        begin_ns, end_ns, pace = self._rows[satellite]
        overlap_ns = np.clip(np.minimum(end_ns, to_ns) - np.maximum(begin_ns, from_ns), 0, None)
        return float(1.0 - overlap_ns @ (1.0 - pace) / (to_ns - from_ns))
