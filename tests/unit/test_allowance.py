"""Work that is only pretended takes longer at a lower pace, and stands still while the computer is off."""

from __future__ import annotations

import threading

import pytest

from isl_emu.parts.serving.modelled_state import TRAINED, UNLIMITED, Allowance, ModelledState
from isl_emu.timebase import ManualClock

S = 1_000_000_000


class Governed(ManualClock):
    """A clock at whose times the pace changes."""

    def __init__(self, state: ModelledState, paces: dict[int, float]):
        super().__init__()
        self._state, self._paces = state, paces

    def sleep_until_ns(self, deadline_ns: int) -> None:
        super().sleep_until_ns(deadline_ns)
        for t_ns, pace in self._paces.items():
            if self.now_ns() >= t_ns:
                self._state.pace_ratio[0] = pace


@pytest.fixture
def state(tmp_path) -> ModelledState:
    return ModelledState.create(tmp_path / TRAINED, ["p00s00"])


@pytest.mark.parametrize(
    ("paces", "takes_s"),
    [
        ({}, 3.0),
        ({0: 0.5}, 5.5),  # the first half second at full pace, before it is told
        ({S: 0.0, 4 * S: 1.0}, 6.0),
    ],
)
def test_work_takes_as_long_as_its_pace_says(state, tmp_path, paces, takes_s):
    clock = Governed(state, paces)
    assert not Allowance.of(tmp_path / TRAINED).work("p00s00", 3 * S, clock, threading.Event())
    assert clock.now_ns() == takes_s * S
    assert state.busy_ns[0] == 3 * S


def test_whoever_has_no_power_works_at_full_pace(tmp_path):
    for allowance in (UNLIMITED, Allowance.of(tmp_path / TRAINED)):
        clock = ManualClock()
        assert not allowance.work("p00s09", 3 * S, clock, threading.Event())
        assert clock.now_ns() == 3 * S


def test_it_can_be_stopped_while_the_computer_is_off(state, tmp_path):
    state.pace_ratio[0], stopped = 0.0, threading.Event()
    stopped.set()
    assert Allowance.of(tmp_path / TRAINED).work("p00s00", 3 * S, ManualClock(), stopped)
    assert state.busy_ns[0] == 0
