"""What is changed by hand: written down when it begins and when it ends, by itself or by its user."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from isl_emu.live.interventions import Interventions
from isl_emu.network.overrides import Override
from isl_emu.runs.clock import RunTimes
from isl_emu.runs.journal import Journal, joined
from isl_emu.timebase import MonotonicClock
from isl_emu.units import NS_PER_MS as MS
from isl_emu.units import NS_PER_S as S

LINK, OTHER = ("p00s00", "p00s01"), ("p00s01", "p00s02")


class Laid:
    """A replay of which only the overrides are wanted."""

    def __init__(self, clock: MonotonicClock, t0_ns: int):
        self.overrides: tuple[Override, ...] = ()
        self._clock, self._t0_ns = clock, t0_ns

    def override(self, change: Callable[[tuple[Override, ...]], tuple[Override, ...]]) -> int:
        self.overrides = change(self.overrides)
        return self._clock.now_ns() - self._t0_ns


@pytest.fixture
def laid() -> Laid:
    clock = MonotonicClock()
    return Laid(clock, clock.now_ns())


@pytest.fixture
def interventions(laid: Laid, tmp_path: Path) -> Interventions:
    times = RunTimes(laid._t0_ns, laid._t0_ns + 3600 * S)
    journal = Journal(tmp_path / "incidents.jsonl")
    return Interventions(laid, laid._clock, times, threading.Event(), journal)  # type: ignore[arg-type]


def told(folder: Path) -> list[dict[str, object]]:
    return joined(json.loads(line) for line in (folder / "incidents.jsonl").read_text().splitlines())


def test_what_is_taken_back_is_written_down_with_its_end(
    laid: Laid, interventions: Interventions, tmp_path: Path
) -> None:
    cut, slow = Override((0,), cut=True), Override((1,), rate_factor=0.5)
    begun_ns = interventions.begin(LINK, cut.text(), cut, None)
    interventions.begin(OTHER, slow.text(), slow, None)
    assert laid.overrides == (cut, slow)
    assert list(map(str, interventions.in_force)) == ["p00s00 - p00s01: cut", "p00s01 - p00s02: rate x 0.5"]
    ((ended, end_ns),) = interventions.end(LINK)
    assert (ended.place, laid.overrides) == (LINK, (slow,))
    assert interventions.end(LINK) == []
    first, second = told(tmp_path)
    assert first == {
        "t_ns": begun_ns, "t_end_ns": end_ns, "kind": "intervention", "node": "p00s00", "what": "link",
        "cause": "p00s00 - p00s01 by hand: cut", "links": [0],
    }  # fmt: skip
    assert second["t_end_ns"] is None
    assert [one.place for one, _ in interventions.end(None)] == [OTHER]
    assert laid.overrides == ()


def test_what_lasts_a_while_ends_by_itself_and_once(laid: Laid, interventions: Interventions, tmp_path: Path) -> None:
    undone: list[str] = []
    cut = Override((0,), cut=True)
    begun_ns = interventions.begin(LINK, cut.text(), cut, 50 * MS, lambda: undone.append("cut"))
    assert str(interventions.in_force[0]).startswith("p00s00 - p00s01: cut, until t = ")
    interventions.begin(OTHER, "cut", Override((1,), cut=True), 50 * MS)
    interventions.end(OTHER)
    while interventions.in_force:
        time.sleep(0.01)
    while len(told(tmp_path)) < 2 or told(tmp_path)[0]["t_end_ns"] is None:
        time.sleep(0.01)
    assert laid.overrides == () and undone == ["cut"]
    assert told(tmp_path)[0]["t_end_ns"] >= begun_ns + 50 * MS  # type: ignore[operator]
