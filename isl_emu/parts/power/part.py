"""Power: Sun, batteries and radiators decide how fast satellites may compute."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from isl_emu.parts.activity import Activity
from isl_emu.parts.finished_run import FinishedRun
from isl_emu.parts.live_run import LiveRun
from isl_emu.parts.part import Pace, Part
from isl_emu.parts.power.allowed_pace import AllowedPace
from isl_emu.parts.power.governor import Governing
from isl_emu.parts.power.report import energy_section
from isl_emu.parts.power.tables import ENERGY
from isl_emu.parts.power.totals import EnergyTotals, energy_totals, write_energy
from isl_emu.runs.journal import read_latest

FIGURES = "energy.json"  # in the run folder


class PowerPart(Part):
    key = "power"
    lines = {"energy": ENERGY}

    def start(self, live: LiveRun) -> Iterable[Activity]:
        if live.scenario.power:
            yield Governing(live)

    def status(self, journal: Path) -> Iterable[str]:
        if energy := read_latest(journal / "energy.jsonl"):
            modes = Counter({row["satellite"]: row["mode"] for row in energy}.values())
            yield f"satellites with power: {', '.join(f'{count} {mode}' for mode, count in modes.most_common())}"

    def conclude(self, run: FinishedRun) -> None:
        if totals := _totals(run):
            write_energy(run.folder.path / FIGURES, totals)

    def pace(self, run: FinishedRun) -> Pace | None:
        energy = run.table("energy")
        return AllowedPace(energy).mean_ratio if energy is not None and energy.num_rows else None

    def sections(self, run: FinishedRun, figures: Mapping[str, Any]) -> Iterator[Iterable[str]]:
        if totals := _totals(run):
            yield energy_section(totals)


def _totals(run: FinishedRun) -> Mapping[str, EnergyTotals]:
    """What the energy came to; empty for a run without power, or that ended before it began."""
    energy = run.table("energy")
    return energy_totals(energy, run.rows("requests"), run.scenario) if energy is not None and energy.num_rows else {}
