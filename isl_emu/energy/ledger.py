"""What is written down of each satellite's energy while a run is live."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from isl_emu.energy.fleet import Fleet, Flow, State
from isl_emu.energy.satellite import Mode

ROWS_AT_ONCE = 200  # beyond as many satellites they take turns: what is written a second does not grow with them
_MEANS = (
    "sunlit_ratio",
    "solar_w",
    "board_w",
    "battery_w",
    "unmet_w",
    "busy_ratio",
    "pace_ratio",
    "limited_ratio",
    "off_ratio",
)


class Ledger:
    """Means over time for each of N satellites, from one of its rows to the next.

    With up to `ROWS_AT_ONCE` satellites each has a row for every step; with m times as many, for every m steps.
    """

    def __init__(self, fleet: Fleet):
        self._fleet = fleet
        self._turns = -(-len(fleet.names) // ROWS_AT_ONCE)
        self._turn = np.arange(len(fleet.names)) % self._turns
        self._sums = np.zeros((len(_MEANS), len(fleet.names)))  # of quantity x time
        self._span_ns = np.zeros(len(fleet.names), dtype=np.int64)

    def add(self, before: State, flow: Flow, sunlit: np.ndarray, busy_ratio: np.ndarray, span_ns: int) -> None:
        """One step.

        Args:
            before: the state in which it began, whose pace held during it.
            sunlit: bool, shape (N,).
            busy_ratio: which share of its full work each computer did, shape (N,).
            span_ns: its length.
        """
        powers = flow.solar_w, flow.board_w, flow.charge_w - flow.discharge_w, flow.unmet_w
        modes = before.mode != Mode.NOMINAL, before.mode == Mode.OFF
        means = sunlit, *powers, busy_ratio, before.pace_ratio, *modes
        self._sums += np.array(means, dtype=float) * span_ns
        self._span_ns += span_ns

    def rows(self, step: int, t_ns: int, after: State, *, last: bool = False) -> Iterator[dict[str, Any]]:
        """The rows of the satellites whose turn it is after a step; after the last step of all that are left.

        Args:
            step: its number.
            t_ns: when it ended.
            after: the state then.
        """
        due = (self._span_ns > 0) & (last | (self._turn == step % self._turns))
        charge = self._fleet.charge_ratio(after)
        for n in np.flatnonzero(due):
            means = self._sums[:, n] / self._span_ns[n]
            yield {
                "t_ns": t_ns,
                "satellite": self._fleet.names[n],
                "interval_ns": int(self._span_ns[n]),
                **{name: round(float(mean), 6) for name, mean in zip(_MEANS, means, strict=True)},
                "charge_ratio": round(float(charge[n]), 6),
                "temperature_k": round(float(after.temperature_k[n]), 4),
                "mode": Mode(after.mode[n]).label,
            }
        self._sums[:, due], self._span_ns[due] = 0.0, 0
