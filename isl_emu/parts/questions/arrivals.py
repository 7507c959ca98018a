"""When questions come: drawn before the run, so a seed repeats them exactly.

    poisson        exponential gaps: independent users, who wait for nobody; MLPerf Inference's Server scenario
    gamma          gaps of a Gamma distribution with shape `burstiness` and the same mean: 1 is Poisson, less comes in
                   bursts, more is more regular; the convention of vLLM's load generator (coefficient of variation
                   1 / sqrt(burstiness))
    single-stream  at every station one question at a time, the next when the answer is there; MLPerf's SingleStream
    offline        all at once, at the start; MLPerf's Offline
    trace          as in a recorded series

All but single-stream are open loops: nothing waits for an earlier answer, so a slow network cannot hide its queue.
Sources: MLPerf Inference rules (github.com/mlcommons/inference_policies); vLLM's `vllm bench serve`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from isl_emu.parts.questions.traces import TracedRequest
from isl_emu.scenario.questions import Questions


@dataclass(frozen=True)
class Arrival:
    """One question to come.

    Args:
        t_ns: when it is due, since the start of the run; for one that waits for another, the earliest.
        station: index of the station where it comes; None: any.
        after: number of the arrival whose end it waits for.
        traced: what a trace says about it.
    """

    t_ns: int
    station: int | None = None
    after: int | None = None
    traced: TracedRequest | None = None


@dataclass(frozen=True)
class ArrivalCourse:
    """What arrivals are drawn from.

    Args:
        stations: how many there are.
        end_ns: when the last one may come.
        trace: the requests of the scenario's trace, if it has one.
    """

    questions: Questions
    stations: int
    end_ns: int
    rng: np.random.Generator
    trace: Sequence[TracedRequest] = ()


def renewals(course: ArrivalCourse) -> Iterator[Arrival]:
    """Independent gaps of one Gamma distribution; with shape 1, which is the default, it is the exponential one."""
    mean_ns, shape, rng = course.questions.mean_interval_ns or 0, course.questions.burstiness or 1.0, course.rng
    t_ns = rng.gamma(shape, mean_ns / shape)
    while t_ns < course.end_ns:
        yield Arrival(int(t_ns))
        t_ns += rng.gamma(shape, mean_ns / shape)


def single_stream(course: ArrivalCourse) -> Iterator[Arrival]:
    """The questions of all stations in turn; each waits for the one before it at its station."""
    stations = course.stations
    for number in range(stations * (course.questions.count or 0)):
        yield Arrival(0, number % stations, number - stations if number >= stations else None)


def offline(course: ArrivalCourse) -> Iterator[Arrival]:
    """All at the start."""
    return (Arrival(0) for _ in range(course.questions.count or 0))


def traced(course: ArrivalCourse) -> Iterator[Arrival]:
    """Those of the trace."""
    return (Arrival(request.t_ns, traced=request) for request in course.trace if request.t_ns < course.end_ns)


ARRIVALS: Mapping[str, Callable[[ArrivalCourse], Iterator[Arrival]]] = {
    "poisson": renewals,
    "gamma": renewals,
    "single-stream": single_stream,
    "offline": offline,
    "trace": traced,
}


def arrivals(
    questions: Questions, stations: int, end_ns: int, rng: np.random.Generator, trace: Sequence[TracedRequest]
) -> Iterator[Arrival]:
    """All arrivals of a run before `end_ns`, in the order of their times; see `ArrivalCourse` for the rest."""
    return ARRIVALS[questions.arrivals](ArrivalCourse(questions, stations, end_ns, rng, trace))
