"""Faults: what a scenario lets break in a run, beside the links that its plan cuts, and what came of each."""

from __future__ import annotations

from collections.abc import Iterable

from isl_emu.parts.activity import Activity
from isl_emu.parts.faults.events import FaultEvents
from isl_emu.parts.live_run import LiveRun
from isl_emu.parts.part import Part


class FaultsPart(Part):
    key = "faults"

    def start(self, live: LiveRun) -> Iterable[Activity]:
        if live.plan.faults.names:
            yield FaultEvents(live)
