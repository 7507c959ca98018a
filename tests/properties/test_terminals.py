"""What holds for every constellation with terminals."""

from __future__ import annotations

from datetime import datetime, timezone

import numpy as np
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

from isl_emu.linkplan import build
from isl_emu.linkplan.build import plan_links
from isl_emu.linkplan.plan import LinkState
from isl_emu.scenario.parse import format_scenario, parse_scenario

START = datetime(2026, 3, 20, 14, tzinfo=timezone.utc)
ENGAGED = [LinkState.SLEWING, LinkState.ACQUIRING, LinkState.TRACKING]
mounts = st.lists(
    st.sampled_from(["fore", "aft", "port", "starboard", "zenith", "nadir", "free"]), min_size=1, max_size=3
)


@st.composite
def terminals(draw) -> list[dict]:
    return [
        {
            "mounts": draw(mounts),
            "field_of_regard": f"{draw(st.integers(20, 180))} deg",
            "acquisition": f"{draw(st.integers(0, 100))} s",
            "serves": draw(st.sampled_from(["any", "any", "shell", "inter-shell"])),
            **draw(st.sampled_from([{}, {"slew_rate": "1 deg/s"}])),
        }
        for _ in range(draw(st.integers(1, 2)))
    ]


@st.composite
def shells(draw, name: str) -> dict:
    planes, slots = draw(st.integers(1, 4)), draw(st.integers(1, 8))
    return {
        "name": name,
        "walker": {
            "pattern": draw(st.sampled_from(["delta", "star"])),
            "total": planes * slots,
            "planes": planes,
            "phasing": draw(st.integers(0, planes - 1)),
        },
        "altitude": f"{draw(st.integers(400, 1500))} km",
        "inclination": f"{draw(st.integers(0, 120))} deg",
        "lasers": {
            "topology": draw(st.sampled_from(["ring", "+grid", "nearest", "none"])),
            "at_start": draw(st.sampled_from(["tracking", "idle"])),
            "interval": draw(st.sampled_from(["10 s", "60 s", "100 s"])),
            "hysteresis": draw(st.sampled_from([0.0, 0.3])),
            "terminal": draw(terminals()),
            **draw(
                st.sampled_from(
                    [{}, {"outages": {"mean_time_to_failure": "200 s", "mean_time_to_repair": "20 s"}},
                     {"polar_cutoff": "40 deg", "max_angular_rate": "0.2 deg/s", "sun_exclusion": "10 deg"}]
                )
            ),
        },
    }  # fmt: skip


@st.composite
def scenarios(draw):
    table = {
        "name": "x",
        "time": {"start": START, "duration": "600 s", "step": draw(st.sampled_from(["10 s", "25 s"]))},
        "shell": [draw(shells("one")), draw(shells("two"))],
        "inter_shell": [{"between": ["one", "two"], "links": draw(st.integers(1, 2))}],
    }
    return parse_scenario(tomli_w.dumps(table), "test")


@settings(deadline=None, max_examples=40)
@given(scenarios())
def test_a_terminal_serves_one_link_at_a_time_and_only_tracking_carries(scenario):
    plan = plan_links(scenario, "text")
    owned = np.concatenate(
        [
            np.full(shell.count, sum(len(terminal.mounts) for terminal in shell.lasers.terminal))
            for shell in scenario.shell
        ]
    )
    count = len(plan.links.a)
    for k in range(plan.grid.count):
        states = plan.events.states(k, count)
        engaged = np.isin(states, ENGAGED)
        ends = np.concatenate([plan.links.a[engaged], plan.links.b[engaged]])
        assert (np.bincount(ends, minlength=len(owned)) <= owned).all()
        assert np.flatnonzero(states == LinkState.TRACKING).tolist() == plan.snapshot(k).link.tolist()


@settings(deadline=None, max_examples=40)
@given(scenarios())
def test_states_follow_each_other_in_the_order_of_pointing(scenario):
    plan = plan_links(scenario, "text")
    idle, slewing, acquiring, tracking, lost, _ = LinkState  # there are no faults
    allowed = {
        (idle, slewing), (idle, acquiring), (idle, tracking), (slewing, acquiring), (slewing, tracking),
        (acquiring, tracking), (lost, slewing), (lost, acquiring), (lost, tracking), (lost, idle),
        *((state, gone) for state in (slewing, acquiring, tracking) for gone in (lost, idle)),
        (tracking, acquiring), (tracking, slewing), (acquiring, slewing),  # lost and pointed at again at one instant
    }  # fmt: skip
    for link in range(len(plan.links.a)):
        states = [idle, *(LinkState(int(state)) for state in plan.events.state[plan.events.link == link])]
        assert set(zip(states[:-1], states[1:], strict=True)) <= allowed


@settings(deadline=None, max_examples=15)
@given(scenarios(), st.integers(1, 13))
def test_neither_chunks_nor_writing_change_a_plan(scenario, instants):
    plan = plan_links(scenario, "text")
    before = build.POSITIONS_AT_ONCE
    try:
        build.POSITIONS_AT_ONCE = instants * len(scenario.satellite_names)
        again = plan_links(parse_scenario(format_scenario(scenario), "again"), "text")
    finally:
        build.POSITIONS_AT_ONCE = before
    assert again.digest() == plan.digest()
