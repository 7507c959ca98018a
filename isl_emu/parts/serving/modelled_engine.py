"""When the tokens of a modelled server's answers come: queueing, prompts and decoding steps.

An `Engine` knows no clock; a `ModelledSatellite` moves it on by timers, for the users who wait for tokens. The server
works as one: it reads one prompt, or adds a token to every answer that is under way (continuous batching). A prompt
goes first and lets the answers wait, and is read whole. At most `slots` answers are under way; further requests queue
in the order in which they came.
"""

from __future__ import annotations

import asyncio
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from isl_emu.parts.serving.board_pace import BoardPace
from isl_emu.parts.serving.completions import timings
from isl_emu.parts.serving.modelled_specification import Specification
from isl_emu.parts.serving.modelled_state import ModelledState
from isl_emu.parts.serving.prefix_cache import PrefixCache
from isl_emu.timebase import Clock
from isl_emu.units import NS_PER_S

LOOK_AGAIN_NS = NS_PER_S // 10  # while the pace is 0


@dataclass(frozen=True)
class Move:
    """What moved of a prompt from another server.

    Args:
        tokens: how many; 0 if nothing could be had there.
        byte: what they take in a cache.
        took_ns: the time that it took to have them, or to find that they could not be had.
    """

    tokens: int
    byte: int
    took_ns: int


@dataclass(eq=False)
class Job:
    """One request to a modelled server; its times are those of the run's clock.

    Args:
        answer_tokens: how many tokens it asks for.
        came_ns: when it came; `read_ns` when its prompt had been read, `token_ns` when its last token was due.
        cached_tokens: of its prompt, beside `prompt_tokens`, that the server had read before.
        blocks: of its prompt, by which the server looks for such tokens when it begins; None if it may not.
        move: what had moved for it from another server before it came; None if nothing was to.
    """

    prompt_tokens: int
    answer_tokens: int
    came_ns: int
    cached_tokens: int = 0
    blocks: tuple[bytes, ...] | None = None
    move: Move | None = None
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
        cache_tokens: how much of earlier prompts it may hold, for those that begin alike.
    """

    def __init__(self, board: BoardPace, slots: int, pace: Callable[[], float] = lambda: 1.0, cache_tokens: int = 0):
        self._board, self._slots, self._pace = board, slots, pace
        self._cache = PrefixCache(cache_tokens)
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

    def known_tokens(self, blocks: Sequence[bytes]) -> int:
        """How many tokens of a prompt with these blocks are known now."""
        return self._cache.known_tokens(blocks)

    def keep(self, blocks: Sequence[bytes]) -> None:
        """Know a prompt's blocks from now on, wherever they were computed."""
        self._cache.keep(blocks)

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

    def delay(self, by_ns: int) -> None:
        """Let the step under way end later: the server stood still for so long."""
        if self._step is not None:
            self._step = replace(self._step, end_ns=self._step.end_ns + by_ns)

    def begun_anew(self) -> Engine:
        """One that knows of no request, as after its end; what was done is still counted."""
        anew = Engine(self._board, self._slots, self._pace, self._cache.most_tokens)
        anew.busy_ns, anew.prompt_tokens, anew.answer_tokens = self.busy_ns, self.prompt_tokens, self.answer_tokens
        return anew

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
            self._cache.keep(step.prompt.blocks or ())
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
            known = self._cache.known_tokens(job.blocks or ())
            job.prompt_tokens, job.cached_tokens = job.prompt_tokens - known, job.cached_tokens + known
            work_ns = round(self._board.prompt_ns(job.prompt_tokens))
            self._step = _Step(now_ns + round(work_ns / pace), work_ns, prompt=job)
        else:
            context_tokens = sum(job.cached_tokens + job.prompt_tokens + job.answered for job in self._answering)
            work_ns = round(self._board.step_ns(context_tokens, len(self._answering)))
            self._step = _Step(now_ns + round(work_ns / pace), work_ns, answers=tuple(self._answering))


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
        self.engine = Engine(spec.pace, spec.slots, lambda: float(state.pace_ratio[row]), spec.context_tokens)
        self._users: dict[Job, asyncio.Queue[None]] = {}
        self.handling = set[asyncio.Task[Any]]()  # those that answer a request
        self.going = asyncio.Event()  # whether it runs: one that is stopped still has connections made to it
        self.going.set()
        self._stood_since_ns = 0
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

    def crash(self) -> None:
        """Forget all requests, whose connections are gone."""
        self._forget_timer()
        self.engine = self.engine.begun_anew()
        for task in self.handling:
            task.cancel()

    def hold(self) -> None:
        """Stand still."""
        if self.going.is_set():
            self.going.clear()
            self._forget_timer()
            self._stood_since_ns = self.clock.now_ns()

    def go_on(self) -> None:
        """Go on where it stood, if it does."""
        if not self.going.is_set():
            self.going.set()
            self.engine.delay(self.clock.now_ns() - self._stood_since_ns)
            self._set_timer()

    def timings(self, job: Job) -> dict[str, float]:
        """The times of a job that is done in the machine's ms, as a real server measures them."""
        assert job.begun_ns is not None and job.read_ns is not None and job.token_ns is not None, "it has its tokens"
        prompt_s, answer_s = map(self.clock.real_s, (job.read_ns - job.begun_ns, job.token_ns - job.read_ns))
        found = timings(job.prompt_tokens, prompt_s * MS_PER_S, job.answered, answer_s * MS_PER_S)
        if job.blocks is not None:
            found["cache_n"] = job.cached_tokens
        if job.move is not None:
            moved_ms = round(self.clock.real_s(job.move.took_ns) * MS_PER_S, 3)
            found |= {"moved_n": job.move.tokens, "moved_byte": job.move.byte, "moved_ms": moved_ms}
        return found

    def _forget_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set_timer(self) -> None:
        if self._timer is None and self.going.is_set() and (due_ns := self.engine.due_ns) is not None:
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
