"""Figures of slices of time, and what a warm-up leaves out of them."""

from __future__ import annotations

from typing import Any

import pytest

from isl_emu.parts.questions.figures import measured, slices
from isl_emu.parts.questions.results import SLICES
from isl_emu.scenario.questions import Questions
from isl_emu.units import NS_PER_S


def _question(due_s: float, ttft_s: float | None, e2e_s: float | None, tokens: int = 10) -> dict[str, Any]:
    done = e2e_s is not None
    return {
        "id": 0, "t_due_ns": round(due_s * NS_PER_S), "outcome": "completed" if done else "timed_out",
        "warm_up": due_s < 10, "t_send_ns": round(due_s * NS_PER_S),
        "t_finish_ns": round((due_s + (e2e_s or 9)) * NS_PER_S),
        "ttft_ns": None if ttft_s is None else round(ttft_s * NS_PER_S),
        "e2e_ns": None if e2e_s is None else round(e2e_s * NS_PER_S), "answer_tokens": tokens if done else None,
        "deadline_met": done, "slo_met": done and ttft_s is not None and ttft_s <= 1,
    }  # fmt: skip


QUESTIONS = Questions.model_validate(
    {"mean_interval": "1 s", "slice": "10 s", "warm_up": "10 s", "slo": {"ttft": "1 s"}}
)
ASKED = [
    _question(1, 0.5, 2), _question(9, 0.5, 4),  # the second is answered in the next slice
    _question(12, 1.0, 2), _question(15, 2.0, 3), _question(19, None, None),
    _question(41, 0.25, 1, tokens=30),
]  # fmt: skip


def test_each_slice_has_what_was_due_and_what_was_answered_in_it() -> None:
    first, second, last = slices(ASKED, QUESTIONS)
    assert [one["t_ns"] // NS_PER_S for one in (first, second, last)] == [0, 10, 40]
    assert [one["requests"] for one in (first, second, last)] == [2, 3, 1]
    assert [one["completed"] for one in (first, second, last)] == [2, 2, 1]
    assert [one["answers"] for one in (first, second, last)] == [1, 3, 1]
    assert [one["output_tokens_per_s"] for one in (first, second, last)] == [1.0, 3.0, 3.0]
    assert [one["goodput_per_s"] for one in (first, second, last)] == pytest.approx([0.1, 0.2, 0.1])
    assert [one["ttft_p50_ns"] / NS_PER_S for one in (first, second, last)] == [0.5, 1.5, 0.25]
    assert [one["warm_up"] for one in (first, second, last)] == [True, False, False]
    assert first.keys() == set(SLICES.names)


def test_without_slices_there_are_none() -> None:
    assert slices(ASKED, QUESTIONS.model_copy(update={"slice_ns": None})) == []


def test_figures_are_of_what_was_due_after_the_warm_up() -> None:
    assert measured(ASKED) == ASKED[2:]
