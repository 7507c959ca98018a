"""What the steps of one live run share."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from isl_emu.linkplan.plan import LinkPlan
from isl_emu.progress import Report, Steps
from isl_emu.runs.clock import RunClock
from isl_emu.runs.directory import RunDirectory
from isl_emu.runs.folder import RunFolder
from isl_emu.scenario.model import Scenario


@dataclass(frozen=True)
class Stage:
    """What the steps of one live run share."""

    folder: RunFolder
    scenario: Scenario
    plan: LinkPlan
    run: RunDirectory
    steps: Steps
    record: dict[str, Any]  # becomes journal/execution.json
    ignore_signals: Callable[[], None]  # from then on neither SIGINT nor SIGTERM interrupts
    clock: RunClock  # of the emulated time

    @contextmanager
    def phase(self, name: str, text: str) -> Iterator[Report]:
        """A step that is shown, and whose duration is added to what is recorded under `name`."""
        begun = time.monotonic()
        with self.steps.step(text) as report:
            yield report
        spent_s = self.record["phases_s"].get(name, 0.0) + time.monotonic() - begun
        self.record["phases_s"][name] = round(spent_s, 3)
