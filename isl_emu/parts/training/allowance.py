"""What energy and heat leave of computers that only pretend to work, such as those of a modelled training step."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from isl_emu.parts.serving.modelled_state import ModelledState
from isl_emu.timebase import Clock
from isl_emu.units import NS_PER_S

FILE = "training_state"  # in the journal folder, where satellites that train have power
LOOK_INTERVAL_NS = NS_PER_S // 2  # between two looks at the pace


@dataclass(frozen=True)
class Allowance:
    """The paces of some satellites' computers; all others may work at their full pace.

    Args:
        state: shared with whoever governs energy.
        rows: of `state`, by satellite.
    """

    state: ModelledState | None = None
    rows: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of_run(cls, journal: Path) -> Allowance:
        """That of the run with this journal folder."""
        if not (journal / FILE).exists():
            return cls()
        state = ModelledState.open(journal / FILE)
        return cls(state, {name: row for row, name in enumerate(state.names)})

    def work(self, satellite: str, work_ns: int, clock: Clock, stopped: threading.Event) -> bool:
        """Wait for as long as work takes that needs `work_ns` at full pace: whether it was stopped meanwhile.

        While the computer is off the work stands still; it is told to whoever governs energy as it is done.
        """
        begun_ns = clock.now_ns()
        if self.state is None or satellite not in self.rows:
            return clock.wait_until_ns(begun_ns + work_ns, stopped)
        row, left_ns = self.rows[satellite], float(work_ns)
        while left_ns > 0.5:
            pace = float(self.state.pace_ratio[row])
            end_ns = begun_ns + (min(round(left_ns / pace), LOOK_INTERVAL_NS) if pace > 0.0 else LOOK_INTERVAL_NS)
            if clock.wait_until_ns(end_ns, stopped):
                return True
            done_ns = min(left_ns, (end_ns - begun_ns) * pace)
            self.state.busy_ns[row] += round(done_ns)
            left_ns, begun_ns = left_ns - done_ns, end_ns
        return False


UNLIMITED = Allowance()
