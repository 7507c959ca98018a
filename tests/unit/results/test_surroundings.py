"""What happened around the guest while the run was live counts; what happened before, after and in pauses does not."""

from __future__ import annotations

from typing import Any

import pytest

from isl_emu.results.conclude import write_tables
from isl_emu.results.fidelity import assess, live_spans
from isl_emu.runs.execution import Execution

S = 1_000_000_000
T0_UTC, T0_NS = "2026-03-20T04:00:00+00:00", 1_773_979_200 * S


def second(after_s: float, waiting: float | None = 0.02, steal: float = 0.0) -> dict[str, Any]:
    """A journal's record of the second that ends so long after instant 0."""
    shares = {"guest_busy_ratio": 0.3, "guest_waiting_ratio": waiting, "steal_ratio": steal, "pressure_ratio": None}
    return {"utc_ns": T0_NS + round(after_s * S), **shares}


@pytest.fixture
def judged(good_run: Any) -> Any:
    """Judges a run of 4 s with these seconds outside, and these pauses."""

    def judge(outside: list[dict[str, Any]], pauses: tuple = ()) -> Any:
        good_run.write("outside.jsonl", outside)
        good_run.write("pauses.jsonl", pauses)
        good_run.write("execution.json", [{"error": None, "mismatches": [], "t0_utc": T0_UTC, "ended_ns": 4 * S}])
        finished = good_run.finished()
        write_tables(finished)
        return assess(finished)

    return judge


def test_a_machine_that_leaves_the_guest_its_cpu_is_no_reason(judged: Any) -> None:
    fidelity = judged([second(n + 0.5) for n in range(-5, 10)])
    assert fidelity.valid
    assert (fidelity.surroundings.samples, fidelity.surroundings.guest_waiting_mean_ratio) == (3, 0.02)


def test_others_that_have_the_cpu_make_the_run_invalid(judged: Any) -> None:
    (reason,) = judged([second(1), second(2, 0.94), second(3), second(4)]).reasons
    assert "waited for its CPU for 25.0%" in reason and "at most 20.0%" in reason


def test_of_several_guests_the_one_counts_that_others_left_least_to(judged: Any) -> None:
    seconds = [{"guest": guest, **second(n, waiting)} for n in (1, 2, 3) for guest, waiting in ((0, 0.0), (1, 0.3))]
    fidelity = judged(seconds)
    assert "waited for its CPU for 30.0%" in fidelity.reasons[0]
    assert fidelity.surroundings.samples == 6


def test_a_hypervisor_that_takes_the_machine_makes_the_run_invalid(judged: Any) -> None:
    (reason,) = judged([second(n, steal=0.25) for n in (1, 2, 3)]).reasons
    assert "a hypervisor took 25.0%" in reason


def test_what_others_do_before_and_after_and_while_it_stands_does_not_count(judged: Any) -> None:
    stood = {"t_ns": 2 * S, "lasted_ns": 10 * S}  # so the run ends at 14 s
    seconds = [second(-1, 0.9), second(1.5), second(2.5, 0.9), second(12.9, 0.9), second(13.5), second(14.5, 0.9)]
    fidelity = judged(seconds, (stood,))
    assert fidelity.valid and fidelity.surroundings.samples == 2


def test_a_machine_that_does_not_count_is_a_gap(judged: Any) -> None:
    fidelity = judged([second(2, None)])
    assert fidelity.valid and fidelity.surroundings.guest_waiting_mean_ratio is None


def test_slow_motion_is_longer_on_the_machine() -> None:
    execution = Execution(t0_utc=T0_UTC, ended_ns=4 * S)
    spans = live_spans(execution, [{"t_ns": S, "lasted_ns": 7 * S}], 3.0)
    assert spans == [(T0_NS, T0_NS + 3 * S), (T0_NS + 10 * S, T0_NS + 19 * S)]
    assert live_spans(Execution(), [], 1.0) == []
