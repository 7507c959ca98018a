"""What a live run says of a link that somebody has cut by hand: why it is down, and when it comes back."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from isl_emu.live.answers import LiveAnswers
from isl_emu.live.interventions import Intervention
from isl_emu.network.overrides import Override
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
