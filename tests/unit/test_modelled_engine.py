"""The pace of modelled servers, by the roofline's own figures; no clock runs."""

from __future__ import annotations

import pytest

from isl_emu.parts.serving.modelled_engine import LOOK_AGAIN_NS, Engine, Job
from isl_emu.scenario.boards import board_named
from isl_emu.scenario.models import Roofline, model_named

ROOFLINE = Roofline(board_named("three-body"), model_named("qwen3-8b"), 4)
T0_NS = 5_000_000_000
two_ns = 2  # each step is rounded to a whole one


def finish(engine: Engine) -> list[tuple[int, list[Job]]]:
    """All steps until nothing is left to do: when each ended, and who got a token."""
    steps = []
    while (due_ns := engine.due_ns) is not None:
        steps.append((due_ns, engine.finish_step()))
    return steps


def test_one_answer_keeps_the_rooflines_pace() -> None:
    engine, job = Engine(ROOFLINE, slots=2), Job(100, 20, T0_NS)
    engine.submit(job)
    tokens_ns = [at_ns for at_ns, got in finish(engine) if got]
    assert len(tokens_ns) == job.answered == engine.answer_tokens == 20
    expected_ns = T0_NS + ROOFLINE.prompt_ns(100)
    assert job.read_ns == pytest.approx(expected_ns, abs=two_ns)
    for answered, at_ns in enumerate(tokens_ns):
        expected_ns += ROOFLINE.step_ns(100 + answered)
        assert at_ns == pytest.approx(expected_ns, abs=two_ns + answered)
    assert engine.busy_ns == tokens_ns[-1] - T0_NS


def test_a_late_look_does_not_slow_the_pace() -> None:
    """Steps follow each other where they were due; a request that comes while idle begins when it comes."""
    engine = Engine(ROOFLINE, slots=1)
    engine.submit(Job(10, 3, T0_NS))
    first_ns = finish(engine)[-1][0]
    engine.submit(Job(10, 3, T0_NS + 10 * (first_ns - T0_NS)))
    assert finish(engine)[-1][0] == T0_NS + 11 * (first_ns - T0_NS)


def test_answers_share_the_reading_of_the_weights() -> None:
    alone, together = Engine(ROOFLINE, slots=4), Engine(ROOFLINE, slots=4)
    alone.submit(Job(50, 100, T0_NS))
    for _ in range(4):
        together.submit(Job(50, 100, T0_NS))
    alone_ns, together_ns = (finish(engine)[-1][0] - T0_NS for engine in (alone, together))
    assert alone_ns < together_ns < 2 * alone_ns


def test_requests_beyond_the_slots_wait_in_order() -> None:
    engine = Engine(ROOFLINE, slots=1)
    jobs = [Job(10, 2, T0_NS) for _ in range(3)]
    for job in jobs:
        engine.submit(job)
    assert (engine.processing, engine.deferred) == (1, 2)
    finish(engine)
    for earlier, later in zip(jobs, jobs[1:]):
        assert later.begun_ns == earlier.token_ns


def test_a_prompt_lets_the_answers_wait() -> None:
    engine, first = Engine(ROOFLINE, slots=2), Job(10, 5, T0_NS)
    engine.submit(first)
    engine.finish_step()
    engine.finish_step()
    second = Job(3000, 1, first.token_ns)
    engine.submit(second)
    engine.finish_step()  # the step under way
    waited_from_ns = first.token_ns
    engine.finish_step()
    engine.finish_step()
    assert first.token_ns - waited_from_ns > ROOFLINE.prompt_ns(3000)
    assert second.token_ns == first.token_ns


def test_half_the_pace_takes_twice_the_time_but_not_the_work() -> None:
    full, half = Engine(ROOFLINE, 1), Engine(ROOFLINE, 1, lambda: 0.5)
    for engine in (full, half):
        engine.submit(Job(100, 10, 0))
    full_ns, half_ns = finish(full)[-1][0], finish(half)[-1][0]
    assert half_ns == pytest.approx(2 * full_ns, abs=10 * two_ns)
    assert full.busy_ns == half.busy_ns == full_ns


def test_a_server_without_power_stands_still_until_it_has_some() -> None:
    pace = [0.0]
    engine, job = Engine(ROOFLINE, 1, lambda: pace[0]), Job(10, 1, T0_NS)
    engine.submit(job)
    for _ in range(5):
        assert engine.finish_step() == []
    assert (job.begun_ns, engine.busy_ns) == (None, 0)
    pace[0] = 1.0
    finish(engine)
    assert job.begun_ns == T0_NS + 6 * LOOK_AGAIN_NS


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_a_user_who_leaves_frees_the_slot(steps: int) -> None:
    engine, gone, next_one = Engine(ROOFLINE, 1), Job(10, 1000, T0_NS), Job(10, 1, T0_NS)
    engine.submit(gone)
    engine.submit(next_one)
    for _ in range(steps):
        engine.finish_step()
    engine.cancel(gone)
    finish(engine)
    assert (gone.answered, next_one.answered) == (max(0, steps - 1), 1)
    assert (engine.processing, engine.deferred) == (0, 0)
