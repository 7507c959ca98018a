"""What a user sees while steps go on, by the clock that is his."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from isl_emu.progress import Steps


@pytest.mark.parametrize("terminal", [False, True])
def test_a_step_takes_the_time_of_the_clock_that_it_is_given(terminal: bool) -> None:
    out, clock = io.StringIO(), [1000.0]
    steps = Steps(Console(file=out, force_terminal=terminal, width=100), lambda: clock[0])
    with steps.step("emulating 60 s") as report:
        clock[0] += 7.2
        report(0.3, "t = 18 s, 7.2 s here")
        clock[0] += 5.0
        report(0.5, "t = 30 s, 12.2 s here")
        clock[0] += 0.1
    shown = out.getvalue()
    assert "12.3 s" in shown.splitlines()[-1]
    assert "t = 30 s, 12.2 s here" in shown  # more than ten seconds after the first line, and than a drawing
    assert ("t = 18 s" in shown) == terminal
