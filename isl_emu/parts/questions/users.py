"""Closed-loop users: each asks, waits for the answer or its failure, thinks, and asks again till the end.

What they ask and how long they think is drawn before the run, by each user's own random numbers in the order of the
user's turns, so it does not depend on who is answered first; when a question is due depends on the one before it.
Nobody thinks for longer than the run, which bounds the turns that are drawn.

A load of this kind is called virtual users by k6, users by Locust, and concurrency by AIPerf and vLLM.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count, islice

import numpy as np

from isl_emu.errors import ScenarioError
from isl_emu.limits import QUESTIONS
from isl_emu.parts.prompts import shuffled_for_ever
from isl_emu.parts.questions.ramp import Ramp
from isl_emu.parts.questions.requests import (
    SEED_RANGE,
    Asked,
    Fields,
    PlannedRequest,
    conversation_fields,
    prompt_fields,
    think_time_ns,
)
from isl_emu.scenario.questions import Questions


def plan_users(
    questions: Questions,
    stations: Mapping[str, float],
    satellites: Sequence[str],
    duration_ns: int,
    rng: np.random.Generator,
    asked: Asked,
) -> list[PlannedRequest]:
    """Draw what all users may ask in a run; arguments as of `plan_requests`.

    Returns:
        All first questions, then all second ones, and so on; each but the first waits for its user's one before, also
        where a conversation ends and the next begins.
    """
    if not stations or not satellites:
        return []
    end_ns = duration_ns if questions.stop_after_ns is None else min(questions.stop_after_ns, duration_ns)
    start_ns, ramp = questions.start_after_ns, Ramp(questions.ramp or [(0, 1.0)])
    spread = users_at(stations, (questions.users_per_station or 0) * len(stations))
    users = [(name, (rank + 0.5) / number) for name, number in spread.items() for rank in range(number)]
    turns: list[tuple[int, int, PlannedRequest]] = []
    conversations = count()
    for user, ((station, level), own_rng) in enumerate(zip(users, rng.spawn(len(users)), strict=True)):
        think_rng, what_rng, who_rng, seed_rng = own_rng.spawn(4)
        asks = _asked_for_ever(questions, asked, what_rng, conversations)
        first_ns = ramp.next_ns(0, level)
        due_ns = math.inf if first_ns is None else start_ns + first_ns
        for turn in islice(count(), questions.count):
            think_ns = think_time_ns(questions.think_time, think_rng) if turn else 0
            due_ns += think_ns
            if due_ns >= end_ns:
                break
            satellite = None if questions.decides_live else questions.target
            if satellite == "uniform":
                satellite = satellites[int(who_rng.integers(len(satellites)))]
            request = PlannedRequest(
                id=len(turns),
                t_due_ns=int(due_ns),
                station=station,
                satellite=satellite,
                temperature=questions.temperature,
                seed=int(seed_rng.integers(SEED_RANGE)),
                after=len(turns) - 1 if turn else None,
                reuse_prefix=questions.reuse_prefix,
                user=user,
                think_ns=think_ns,
                level=level,
                **{"turn": turn, **next(asks)},
            )
            turns.append((turn, user, request))
            if excess := QUESTIONS.excess(len(turns)):
                raise ScenarioError(f"questions: what is asked {excess}")
    return _numbered([request for *_, request in sorted(turns, key=lambda one: one[:2])])


def _asked_for_ever(
    questions: Questions, asked: Asked, rng: np.random.Generator, numbers: Iterator[int]
) -> Iterator[Fields]:
    """What a user asks, question by question; `numbers` are those of the conversations that begin."""
    for conversation in shuffled_for_ever(asked.conversations, rng) if asked.conversations else ():
        yield from conversation_fields(questions, conversation, next(numbers))
    for prompt in shuffled_for_ever(asked.prompts, rng):
        yield prompt_fields(questions, prompt)


def users_at(stations: Mapping[str, float], users: int) -> dict[str, int]:
    """How many users are at each station: their shares of all, rounded so that the sum is kept (largest remainder)."""
    shares = np.array(list(stations.values()), dtype=float)
    wanted = users * shares / shares.sum()
    counts = np.floor(wanted).astype(int)
    counts[np.argsort(counts - wanted, kind="stable")[: users - counts.sum()]] += 1
    return dict(zip(stations, map(int, counts), strict=True))


def _numbered(requests: Sequence[PlannedRequest]) -> list[PlannedRequest]:
    """The same with ids in their order."""
    numbers = {request.id: number for number, request in enumerate(requests)}
    return [
        replace(request, id=numbers[request.id], after=None if request.after is None else numbers[request.after])
        for request in requests
    ]
