"""Which questions are asked, when, from where and of whom: drawn before the run, so a seed repeats them exactly.

Arrivals are a Poisson process, the model of independent users that MLPerf Inference calls the Server scenario: the
gaps are exponential, and nothing waits for an earlier answer (an open loop, so a slow network cannot hide its queue).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from isl_emu.scenario.model import Questions

SEED_RANGE = 2**31  # llama.cpp takes 32 bits, and its largest value means "random"
Nearest = Callable[[str, int], "str | None"]


@dataclass(frozen=True)
class PlannedRequest:
    """One question.

    Args:
        t_due_ns: when it is to be sent, since the start of the run.
        satellite: who is asked; None if nothing that computes is reachable then.
        seed: of the sampling of its answer.
    """

    id: int
    t_due_ns: int
    station: str
    satellite: str | None
    question: str
    system: str
    max_tokens: int
    temperature: float
    seed: int

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> PlannedRequest:
        """What `to_json` gave."""
        return cls(**record)


def plan_requests(
    questions: Questions,
    stations: Sequence[str],
    satellites: Sequence[str],
    duration_ns: int,
    rng: np.random.Generator,
    nearest: Nearest,
) -> list[PlannedRequest]:
    """Draw all requests of a run.

    Each prompt is used once, in a random order, before any is used again.

    Args:
        stations: where questions come from, each equally likely.
        satellites: who computes.
        duration_ns: of the run; questions stop at `questions.stop_after_ns` if that is earlier.
        nearest: (station, time in ns) -> the computing satellite with the least delay, or None.

    Returns:
        In the order of their times; the same for the same generator state.
    """
    if not stations or not satellites:
        return []
    end_ns = duration_ns if questions.stop_after_ns is None else min(questions.stop_after_ns, duration_ns)
    prompts = _shuffled_for_ever(questions.prompts, rng)
    choose = _target(questions.target, satellites, rng, nearest)
    requests = []
    for number, t_due_ns in enumerate(_arrivals_ns(questions.mean_interval_ns, end_ns, rng)):
        station = stations[rng.integers(len(stations))]
        satellite, question, seed = choose(station, t_due_ns), next(prompts), int(rng.integers(SEED_RANGE))
        settings = (questions.system, questions.max_answer_tokens, questions.temperature)
        requests.append(PlannedRequest(number, t_due_ns, station, satellite, question, *settings, seed))
    return requests


def _arrivals_ns(mean_interval_ns: int, end_ns: int, rng: np.random.Generator) -> Iterator[int]:
    t_ns = rng.exponential(mean_interval_ns)
    while t_ns < end_ns:
        yield int(t_ns)
        t_ns += rng.exponential(mean_interval_ns)


def _shuffled_for_ever(prompts: Sequence[str], rng: np.random.Generator) -> Iterator[str]:
    while True:
        for place in rng.permutation(len(prompts)):
            yield prompts[place]


def _target(policy: str, satellites: Sequence[str], rng: np.random.Generator, nearest: Nearest) -> Nearest:
    """Who is asked, by station and time: `policy` is "nearest", "uniform", or a node's name."""
    if policy == "nearest":
        return nearest
    if policy == "uniform":
        return lambda station, t_ns: satellites[rng.integers(len(satellites))]
    return lambda station, t_ns: policy
