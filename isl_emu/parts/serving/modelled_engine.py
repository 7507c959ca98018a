"""When the tokens of a modelled server's answers come: queueing, prompts and decoding steps, without a clock.

The server works as one: it reads one prompt, or adds a token to every answer that is under way (continuous batching).
A prompt goes first and lets the answers wait, and is read whole. At most `slots` answers are under way; further
requests queue in the order in which they came.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from isl_emu.parts.serving.board_pace import BoardPace
from isl_emu.units import NS_PER_S

LOOK_AGAIN_NS = NS_PER_S // 10  # while the pace is 0


@dataclass(eq=False)
class Job:
    """One request to a modelled server; its times are those of the run's clock.

    Args:
        answer_tokens: how many tokens it asks for.
        came_ns: when it came; `read_ns` when its prompt had been read, `token_ns` when its last token was due.
        cached_tokens: of its prompt, beside `prompt_tokens`, that the server had read before.
    """

    prompt_tokens: int
    answer_tokens: int
    came_ns: int
    cached_tokens: int = 0
    begun_ns: int | None = None
    read_ns: int | None = None
    token_ns: int | None = None
    answered: int = 0


@dataclass(frozen=True)
class _Step:
    """What the server is at: a prompt, or a token for each of some answers; nothing while it may not compute."""

    end_ns: int
    work_ns: int
    prompt: Job | None = None
    answers: tuple[Job, ...] = ()


class Engine:
    """A modelled server's work.

    Args:
        pace: the share of its full pace at which it may compute now, 0 to 1; asked at the beginning of each step.
    """

    def __init__(self, board: BoardPace, slots: int, pace: Callable[[], float] = lambda: 1.0):
        self._board, self._slots, self._pace = board, slots, pace
        self._waiting: deque[Job] = deque()
        self._answering: list[Job] = []
        self._step: _Step | None = None
        self.busy_ns = 0  # spent computing, at the full pace
        self.prompt_tokens = self.answer_tokens = 0

    @property
    def due_ns(self) -> int | None:
        """When the step under way ends; None while there is nothing to do."""
        return self._step.end_ns if self._step else None

    @property
    def processing(self) -> int:
        """How many requests have a slot."""
        return len(self._answering) + (self._step is not None and self._step.prompt is not None)

    @property
    def deferred(self) -> int:
        """How many requests wait for a slot, or for their prompt's turn."""
        return len(self._waiting)

    def submit(self, job: Job) -> None:
        """Take a request; what is under way ends first."""
        self._waiting.append(job)
        if self._step is None:
            self._begin(job.came_ns)

    def cancel(self, job: Job) -> None:
        """Forget a request whose user has gone; a prompt that is being read is read to its end."""
        job.answer_tokens = job.answered
        if job in self._waiting:
            self._waiting.remove(job)
        if job in self._answering:
            self._answering.remove(job)

    def finish_step(self) -> list[Job]:
        """End the step that is due and begin the next; the jobs that got a token, some of which may now be complete.

        The next step begins when this one was due, however late this is called: the pace does not drift.
        """
        step, self._step = self._step, None
        assert step is not None, "something is due"
        self.busy_ns += step.work_ns
        if step.prompt is not None:
            step.prompt.read_ns = step.end_ns
            self.prompt_tokens += step.prompt.prompt_tokens
            self._answering.append(step.prompt)
        got = [job for job in step.answers if job.answered < job.answer_tokens]
        for job in got:
            job.answered, job.token_ns = job.answered + 1, step.end_ns
        self.answer_tokens += len(got)
        self._answering = [job for job in self._answering if job.answered < job.answer_tokens]
        self._begin(step.end_ns)
        return got

    def _begin(self, now_ns: int) -> None:
        """Begin the next step, if there is something to do."""
        if not (self._waiting or self._answering):
            return
        if (pace := self._pace()) <= 0.0:
            self._step = _Step(now_ns + LOOK_AGAIN_NS, 0)
        elif self._waiting and len(self._answering) < self._slots:
            job = self._waiting.popleft()
            job.begun_ns = now_ns
            work_ns = round(self._board.prompt_ns(job.prompt_tokens))
            self._step = _Step(now_ns + round(work_ns / pace), work_ns, prompt=job)
        else:
            context_tokens = sum(job.cached_tokens + job.prompt_tokens + job.answered for job in self._answering)
            work_ns = round(self._board.step_ns(context_tokens, len(self._answering)))
            self._step = _Step(now_ns + round(work_ns / pace), work_ns, answers=tuple(self._answering))
