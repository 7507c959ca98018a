from __future__ import annotations

import numpy as np
import pytest

from isl_emu.linkplan.events import LinkState, events_of_rows, ordered_events
from tests.plans import MS, make_plan


def test_contacts_become_tracking_and_their_ends_lost_or_idle():
    laser, ground = (0, 1), (0, 2)
    plan = make_plan(2, ["gs"], [{laser: MS, ground: MS}, {ground: MS}, {laser: MS}])
    events = list(zip(plan.events.k.tolist(), plan.events.link.tolist(), plan.events.state.tolist(), strict=True))
    assert events == [
        (0, 0, LinkState.TRACKING), (0, 1, LinkState.TRACKING), (1, 0, LinkState.LOST),
        (2, 0, LinkState.TRACKING), (2, 1, LinkState.IDLE),
    ]  # fmt: skip
    assert plan.events.states(1, 2).tolist() == [LinkState.LOST, LinkState.TRACKING]


def test_before_its_first_event_a_link_is_idle():
    events = ordered_events(np.array([3, 1]), np.array([0, 0]), np.array([LinkState.TRACKING, LinkState.ACQUIRING]))
    assert [int(events.states(k, 1)[0]) for k in range(4)] == [0, 2, 2, 3]


def test_no_rows_make_no_events():
    assert len(events_of_rows(np.zeros(4, dtype=np.int64), np.empty(0, np.int32), np.empty(0, bool)).k) == 0


def test_events_are_read_only():
    with pytest.raises(ValueError, match="read-only"):
        make_plan(2, [], [{(0, 1): MS}]).events.k[0] = 1
