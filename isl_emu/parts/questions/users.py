"""Closed-loop users: each asks, waits for the answer or its failure, thinks, and asks again till the end.

What they ask and how long they think is drawn before the run, by each user's own random numbers in the order of the
user's turns, so it does not depend on who is answered first; when a question is due depends on the one before it.
Nobody thinks for longer than the run, which bounds the turns that are drawn.

A load of this kind is called virtual users by k6, users by Locust, and concurrency by AIPerf and vLLM.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import count, islice

import numpy as np

from isl_emu.errors import ScenarioError
from isl_emu.limits import QUESTIONS
from isl_emu.parts.prompts import shuffled_for_ever
from isl_emu.parts.questions.ramp import Ramp
from isl_emu.parts.questions.requests import SEED_RANGE, Asked, PlannedRequest
from isl_emu.scenario.questions import Questions, ThinkTime


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
        All first questions, then all second ones, and so on; each but the first waits for its user's one before.
    """
    if not stations or not satellites:
        return []
    end_ns = duration_ns if questions.stop_after_ns is None else min(questions.stop_after_ns, duration_ns)
    start_ns, ramp = questions.start_after_ns, Ramp(questions.ramp or [(0, 1.0)])
    spread = users_at(stations, (questions.users_per_station or 0) * len(stations))
    users = [(name, (rank + 0.5) / number) for name, number in spread.items() for rank in range(number)]
    turns: list[tuple[int, int, PlannedRequest]] = []
    for user, ((station, level), own_rng) in enumerate(zip(users, rng.spawn(len(users)), strict=True)):
        think_rng, what_rng, who_rng, seed_rng = own_rng.spawn(4)
        prompts = shuffled_for_ever(asked.prompts, what_rng)
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
                question=next(prompts),
                system=questions.system,
                max_tokens=questions.max_answer_tokens,
                temperature=questions.temperature,
                seed=int(seed_rng.integers(SEED_RANGE)),
                after=len(turns) - 1 if turn else None,
                reuse_prefix=questions.reuse_prefix,
                user=user,
                turn=turn,
                think_ns=think_ns,
                level=level,
            )
            turns.append((turn, user, request))
            if excess := QUESTIONS.excess(len(turns)):
                raise ScenarioError(f"questions: what is asked {excess}")
    return _numbered([request for *_, request in sorted(turns, key=lambda one: one[:2])])


def users_at(stations: Mapping[str, float], users: int) -> dict[str, int]:
    """How many users are at each station: their shares of all, rounded so that the sum is kept (largest remainder)."""
    shares = np.array(list(stations.values()), dtype=float)
    wanted = users * shares / shares.sum()
    counts = np.floor(wanted).astype(int)
    counts[np.argsort(counts - wanted, kind="stable")[: users - counts.sum()]] += 1
    return dict(zip(stations, map(int, counts), strict=True))


def think_time_ns(think: ThinkTime | None, rng: np.random.Generator) -> int:
    """A draw; 0 of who does not think."""
    if think is None:
        return 0
    if think.distribution == "exponential":
        return round(rng.exponential(think.mean_ns))
    if think.distribution == "lognormal":
        variance = math.log1p(((think.deviation_ns or 0) / think.mean_ns) ** 2)  # of the logarithm
        return round(rng.lognormal(math.log(think.mean_ns) - variance / 2, math.sqrt(variance)))
    return think.mean_ns


def _numbered(requests: Sequence[PlannedRequest]) -> list[PlannedRequest]:
    """The same with ids in their order."""
    numbers = {request.id: number for number, request in enumerate(requests)}
    return [
        replace(request, id=numbers[request.id], after=None if request.after is None else numbers[request.after])
        for request in requests
    ]
