"""The governor on a clock of its own: it follows what computers did, and holds them to what the energy allows."""

from __future__ import annotations

import threading
from datetime import datetime, timezone

import numpy as np
import pytest

from isl_emu.energy.sky import Sunshine
from isl_emu.errors import MachineError, WorkloadError
from isl_emu.parts.power.governor import ContainerComputers, Governor, ModelledComputers
from isl_emu.parts.serving.modelled_state import ModelledState
from isl_emu.timebase import ManualClock, TimeGrid
from tests.unit.energy.fleets import small_fleet

T0_NS = 5_000_000_000
SECOND_NS = 1_000_000_000


class Greedy:
    """Computers that do all that they may, and remember what they were told."""

    def __init__(self, count: int):
        self.pace = np.ones(count)
        self.told: list[list[float]] = []

    def busy_ratio(self, span_ns: int) -> np.ndarray:
        return self.pace

    def set_pace(self, pace_ratio: np.ndarray) -> None:
        self.pace = pace_ratio
        self.told.append(pace_ratio.tolist())


def governed(fleet, seconds: int, computers, lit: float = 0.0, numbers=None, stop=None) -> list[dict]:
    rows: list[dict] = []
    grid = TimeGrid(datetime(2026, 1, 1, tzinfo=timezone.utc), SECOND_NS, seconds)
    sun = np.full((seconds, len(fleet.names)), lit, dtype=np.float32)
    kinds = [(np.arange(len(fleet.names)) if numbers is None else numbers, computers)]
    governor = Governor(fleet, Sunshine(sun > 0, sun, sun), grid, kinds, ManualClock(), rows.append)
    governor.run(T0_NS, stop or threading.Event())
    governor.check()
    return rows


def test_it_slows_and_stops_a_computer_whose_battery_empties():
    """60 W for the computer and 20 W for the bus out of 2 Wh, of which half may be used: less than a minute."""
    computers = Greedy(1)
    rows = governed(small_fleet(capacity_wh=2.0), 120, computers)
    assert len(rows) == 120
    assert [row["t_ns"] for row in rows] == [SECOND_NS * n for n in range(1, 121)]
    paces = [told[0] for told in computers.told]
    assert paces[0] == 1.0
    assert paces == sorted(paces, reverse=True)
    assert 0.0 < min(pace for pace in paces if pace) < 1.0
    assert paces[-1] == 0.0
    modes = [row["mode"] for row in rows]
    assert list(dict.fromkeys(modes)) == ["nominal", "power-limited", "off"]
    assert rows[-1]["board_w"] == 0.0
    assert rows[-1]["off_ratio"] == 1.0


def test_satellites_without_a_computer_are_followed_too():
    rows = governed(small_fleet(2), 3, Greedy(1), numbers=np.array([1]))
    assert [row["busy_ratio"] for row in rows] == [0.0, 1.0] * 3


def test_it_ends_when_the_run_is_stopped():
    stop = threading.Event()
    stop.set()
    assert governed(small_fleet(), 100, Greedy(1), stop=stop) == []


def test_a_failure_is_told_to_who_watches_the_run():
    class Broken(Greedy):
        def set_pace(self, pace_ratio: np.ndarray) -> None:
            raise MachineError("cgroups: gone")

    with pytest.raises(WorkloadError, match="cgroups: gone"):
        governed(small_fleet(), 3, Broken(1))


class FakeContainer:
    cpus = 0.2  # of the machine, in a run at half speed: 0.4 at the scenario's own pace

    def __init__(self):
        self.used_ns, self.said = 1_000, []

    def cpu_ns(self) -> int:
        return self.used_ns

    def set_cpus(self, cpus: float) -> None:
        self.said.append(round(cpus, 6))

    def suspend(self) -> None:
        self.said.append("off")

    def resume(self) -> None:
        self.said.append("on")


def test_the_work_of_a_container_is_its_share_of_cpu_time():
    container = FakeContainer()
    computers = ContainerComputers([container], slowdown=2.0)
    container.used_ns += 200_000_000  # in one emulated second, two of the machine's, of which it may have 0.4 s
    assert computers.busy_ratio(SECOND_NS).tolist() == [pytest.approx(0.5)]
    assert computers.busy_ratio(SECOND_NS).tolist() == [0.0]


def test_limits_of_a_container_are_changed_only_when_it_matters():
    container = FakeContainer()
    computers = ContainerComputers([container], slowdown=2.0)
    for pace in (1.0, 0.999, 0.5, 0.501, 0.004, 0.0, 0.0, 0.6):
        computers.set_pace(np.array([pace]))
    assert container.said == [0.1, "on", 0.002, "on", "off", "off", 0.12, "on"]


def test_the_work_of_a_modelled_server_never_exceeds_its_pace_and_none_is_lost(tmp_path):
    state = ModelledState.create(tmp_path / "state", ["a", "b", "c"])
    computers = ModelledComputers(ModelledState.open(tmp_path / "state"), np.array([2, 0]))
    computers.set_pace(np.array([0.5, 1.0]))
    assert state.pace_ratio.tolist() == [1.0, 1.0, 0.5]
    state.busy_ns[:] = [SECOND_NS // 4, 7, 3 * SECOND_NS // 4]
    assert computers.busy_ratio(SECOND_NS).tolist() == [0.5, 0.25]
    assert computers.busy_ratio(SECOND_NS).tolist() == [0.25, 0.0]
    assert computers.busy_ratio(SECOND_NS).tolist() == [0.0, 0.0]
