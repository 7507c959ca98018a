"""A server at a board's pace on one satellite: its engine, moved on by timers, and who waits for tokens."""

from __future__ import annotations

import asyncio
from array import array

from isl_emu.parts.serving.completions import timings
from isl_emu.parts.serving.modelled_engine import Engine, Job
from isl_emu.parts.serving.modelled_specification import Specification
from isl_emu.parts.serving.modelled_state import ModelledState
from isl_emu.timebase import Clock

MS_PER_S = 1000


class ModelledSatellite:
    """One server at a board's pace and the users who wait for its tokens.

    Args:
        row: of its satellite in `state`.
        late_ns: is given how late each step was noticed.
    """

    def __init__(self, spec: Specification, row: int, state: ModelledState, clock: Clock, late_ns: array[int]):
        self.spec, self.clock = spec, clock
        self._row, self._state, self._late_ns = row, state, late_ns
        self.engine = Engine(spec.pace, spec.slots, lambda: float(state.pace_ratio[row]))
        self._users: dict[Job, asyncio.Queue[None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None  # kept: asking asyncio for it is a system call

    @property
    def powered(self) -> bool:
        """Whether it may compute at all now."""
        return bool(self._state.pace_ratio[self._row] > 0.0)

    def submit(self, job: Job) -> asyncio.Queue[None]:
        """Take a request; the queue gets an item with each token."""
        self._users[job] = asyncio.Queue()
        self.engine.submit(job)
        self._set_timer()
        return self._users[job]

    def leave(self, job: Job) -> None:
        """The user has all tokens, or has gone."""
        del self._users[job]
        self.engine.cancel(job)

    def timings(self, job: Job) -> dict[str, float]:
        """The times of a job that is done in the machine's ms, as a real server measures them."""
        assert job.begun_ns is not None and job.read_ns is not None and job.token_ns is not None, "it has its tokens"
        prompt_s, answer_s = map(self.clock.real_s, (job.read_ns - job.begun_ns, job.token_ns - job.read_ns))
        return timings(job.prompt_tokens, prompt_s * MS_PER_S, job.answered, answer_s * MS_PER_S)

    def _set_timer(self) -> None:
        if self._timer is None and (due_ns := self.engine.due_ns) is not None:
            self._loop = self._loop or asyncio.get_running_loop()
            self._timer = self._loop.call_later(self.clock.timeout_s(due_ns), self._look)

    def _look(self) -> None:
        """End all steps that are due by now."""
        self._timer, now_ns = None, self.clock.now_ns()
        while (due_ns := self.engine.due_ns) is not None and due_ns <= now_ns:
            got = self.engine.finish_step()
            if got:
                self._late_ns.append(now_ns - due_ns)
            for job in got:
                self._users[job].put_nowait(None)
        self._state.busy_ns[self._row] = self.engine.busy_ns
        self._state.tokens[self._row] = self.engine.answer_tokens
        self._set_timer()
