"""What programs say they compute takes as long as their node's share of a core, and what power leaves of it."""

from __future__ import annotations

import time

import pytest

from isl_emu.parts.programs.computing import LOOK_INTERVAL_NS, SharedCore, compute
from isl_emu.units import NS_PER_S


def _ends(core: SharedCore, begins: dict[str, tuple[float, float]]) -> dict[str, float]:
    """When each is done (s), of those who begin at a time to compute for some time (s)."""
    waiting = sorted(begins, key=lambda who: begins[who])
    ends, now_ns = {}, 0
    while waiting or core.due_ns is not None:
        starts_ns = round(begins[waiting[0]][0] * NS_PER_S) if waiting else None
        now_ns = min(t_ns for t_ns in (starts_ns, core.due_ns) if t_ns is not None)
        ends |= dict.fromkeys(map(str, core.advance(now_ns)), now_ns / NS_PER_S)
        if now_ns == starts_ns:
            who = waiting.pop(0)
            core.begin(who, begins[who][1] * NS_PER_S, now_ns)
    return ends


@pytest.mark.parametrize(
    ("cpus", "begins", "ends"),
    [
        (1.0, {"a": (0.0, 2.0)}, {"a": 2.0}),
        (0.25, {"a": (1.0, 2.0)}, {"a": 9.0}),
        (4.0, {"a": (0.0, 2.0)}, {"a": 2.0}),  # it has one thread
        (1.0, {"a": (0.0, 2.0), "b": (1.0, 2.0)}, {"a": 3.0, "b": 4.0}),
        (2.0, {"a": (0.0, 2.0), "b": (0.0, 2.0), "c": (0.0, 4.0)}, {"a": 3.0, "b": 3.0, "c": 5.0}),
    ],
)
def test_who_computes_at_once_shares(cpus, begins, ends):
    core = SharedCore(cpus)
    assert _ends(core, begins) == pytest.approx(ends)
    assert core.computed_ns == pytest.approx(sum(work for _, work in begins.values()) * NS_PER_S)


def test_a_lower_pace_takes_longer_and_none_stands_still():
    paces = iter([0.5] * 10 + [0.0] * 10)  # a look each, and one more when somebody begins or is done
    core = SharedCore(1.0, lambda: next(paces, 1.0))
    (end,) = _ends(core, {"a": (0.0, 1.0)}).values()
    halved, off = 10 * LOOK_INTERVAL_NS / NS_PER_S, 10 * LOOK_INTERVAL_NS / NS_PER_S
    assert end == pytest.approx(off + halved + (1.0 - halved / 2), abs=2 * LOOK_INTERVAL_NS / NS_PER_S)


def test_who_gives_up_leaves_the_core_to_others():
    core = SharedCore(1.0)
    core.begin("a", NS_PER_S, 0)
    core.begin("b", NS_PER_S, 0)
    core.give_up("b", NS_PER_S)
    assert core.due_ns == NS_PER_S + LOOK_INTERVAL_NS
    assert core.advance(NS_PER_S * 3 // 2) == ["a"] and core.due_ns is None


def test_outside_of_exact_time_it_keeps_the_processor_busy():
    before_ns = time.thread_time_ns()
    compute(0.02)
    assert time.thread_time_ns() - before_ns >= 20_000_000


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
def test_what_is_no_time_is_refused(seconds):
    with pytest.raises(ValueError, match="must be a time of 0 or more"):
        compute(seconds)
