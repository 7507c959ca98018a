"""What a live run says of a link that somebody has cut by hand, and what it lets nobody do by hand."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from isl_emu.errors import NetworkError
from isl_emu.files import write_json
from isl_emu.live.answers import LiveAnswers
from isl_emu.live.interventions import Intervention
from isl_emu.network.overrides import Override, least_delay_ns
from isl_emu.runs.folder import RunFolder
from isl_emu.runs.portion import Portion
from tests.plans import MS, SECOND, make_plan

WHOLE, BROKEN = {(0, 1): MS, (1, 2): MS}, {(1, 2): MS}
CUT, LOSING, SLOW = Override((0,), cut=True), Override((0,), loss_ratio=1), Override((0,), delay_ns=MS)
ELSEWHERE = Override((1,), cut=True)
BACK = "down: an intervention (p00s00 - p00s01: cut); "


@pytest.mark.parametrize(
    ("in_force", "told"),
    [
        ([], None),
        ([(SLOW, None), (ELSEWHERE, None)], None),
        ([(CUT, None)], BACK + "stays down until somebody restores it"),
        ([(CUT, 1500 * MS)], BACK + "comes back at t = 1.500 s"),
        ([(CUT, 2500 * MS)], BACK + "comes back at t = 4.000 s"),  # the sky has it down from 2 to 4 s
        ([(CUT, 5500 * MS)], BACK + "stays down until the end"),  # and from 5 s on
        ([(CUT, 60 * SECOND)], BACK + "stays down until the end"),
        (
            [(CUT, 1 * SECOND), (LOSING, 1800 * MS)],
            "down: an intervention (p00s00 - p00s01: cut and p00s00 - p00s01: loss 1); comes back at t = 1.800 s",
        ),
        (
            [(CUT, 1 * SECOND), (LOSING, None)],
            "down: an intervention (p00s00 - p00s01: cut and p00s00 - p00s01: loss 1); "
            "stays down until somebody restores it",
        ),
    ],
)
def test_a_link_that_is_cut_by_hand_says_when_it_comes_back(in_force: Any, told: str | None) -> None:
    plan = make_plan(3, [], [WHOLE, WHOLE, BROKEN, BROKEN, WHOLE, BROKEN])
    laid = [
        Intervention(number, ("p00s00", "p00s01"), override.text(), override, until_ns)
        for number, (override, until_ns) in enumerate(in_force)
    ]
    nothing: Any = None
    live = LiveAnswers(plan, *[nothing] * 4, SimpleNamespace(in_force=laid), nothing, {})
    assert live._cut_by_hand(0) == told


@pytest.mark.parametrize(
    ("overrides", "least_ns"),
    [
        ([CUT], 2 * MS),
        ([Override((0,), delay_ns=50 * MS)], 2 * MS),  # the plan's may come back first
        ([Override((0,), delay_ns=MS)], MS),
        ([Override((0,), delay_factor=0.25), Override((0,), delay_factor=3.0)], MS // 2),
        ([Override((0,), delay_ns=MS), Override((0,), delay_factor=0.5, jitter_ns=MS)], -MS // 2),
    ],
)
def test_no_packet_is_on_a_link_for_less_whatever_of_it_is_in_force(overrides: list[Override], least_ns: int) -> None:
    plan = make_plan(2, [], [{(0, 1): 3 * MS}, {}, {(0, 1): 2 * MS}])
    assert least_delay_ns(plan, 0, overrides) == least_ns


def test_a_link_between_guests_takes_no_delay_by_hand_that_is_less_than_the_lookahead(tmp_path: Path) -> None:
    plan = make_plan(3, [], [{(0, 1): 3 * MS, (1, 2): 3 * MS}])
    portion, begun = Portion(0, np.array([0, 0, 1], np.int32)), list[str]()
    write_json(tmp_path / "cut.json", {"part": portion.part.tolist(), "lookahead_ns": 2 * MS})

    def begin(place: tuple[str, ...], text: str, *_: object) -> int:
        begun.append(f"{' - '.join(place)}: {text}")
        return 0

    nothing: Any = None
    net: Any = SimpleNamespace(portion=portion)
    interventions: Any = SimpleNamespace(in_force=[], begin=begin)
    course: Any = SimpleNamespace(t_ns=lambda: 0)
    live = LiveAnswers(plan, net, RunFolder(tmp_path), nothing, course, interventions, nothing, {})

    def changed(a: str, b: str, **changes: object) -> None:
        request = {"verb": "set", "place": [a, b], "changes": changes, "for_ns": None}
        live.override(request, SimpleNamespace(output=BytesIO()))  # type: ignore[arg-type]

    changed("p00s00", "p00s01", delay_ns=MS)
    changed("p00s02", "p00s01", delay_ns=2 * MS, loss_ratio=0.5)
    with pytest.raises(NetworkError, match="set: delay 1 ms lets packets arrive after 1 ms, but .* less than 2 ms"):
        changed("p00s02", "p00s01", delay_ns=MS)
    assert begun == ["p00s00 - p00s01: delay 1 ms", "p00s01 - p00s02: delay 2 ms, loss 0.5"]
