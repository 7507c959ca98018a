"""Who is asked: policies that choose among the satellites that serve, by what a station knows when it asks.

A policy of a user's own is a function ``choose(situation) -> name of a candidate, or None`` that the scenario names as
``package.module:function``; `Situation` is all that it gets. Asking nobody (None) makes the question unreachable.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from isl_emu.scenario.user_functions import user_function


@dataclass(frozen=True)
class Candidate:
    """A satellite that serves and can be reached.

    Args:
        delay_ns: one way, by the plan.
        hops: links on that path, that to the ground included.
        contact_left_ns: for how long the station keeps its own link to it; None if it has none.
        queue: how many requests the satellite works on or keeps waiting, as it told the station the last time, and how
            many the station has sent it since; None if it never told, or is not asked.
        queue_age_ns: how old that is.
    """

    satellite: str
    delay_ns: int
    hops: int
    contact_left_ns: int | None = None
    queue: float | None = None
    queue_age_ns: int | None = None


@dataclass(frozen=True)
class Situation:
    """What is known when a question is sent.

    Args:
        t_ns: since the start of the run.
        candidates: by rising delay, at least one.
        tried: satellites that failed to answer this question.
    """

    t_ns: int
    station: str
    candidates: tuple[Candidate, ...]
    tried: tuple[str, ...] = ()


Policy = Callable[[Situation], "str | None"]


def nearest(situation: Situation) -> str:
    """The satellite with the least delay."""
    return situation.candidates[0].satellite


def least_loaded(situation: Situation) -> str:
    """The one with the shortest queue; of equal ones, and while no queue is known, the nearest."""
    known = [candidate for candidate in situation.candidates if candidate.queue is not None]
    return min(known or situation.candidates, key=lambda candidate: candidate.queue or 0.0).satellite


def longest_contact(situation: Situation) -> str:
    """Of the satellites overhead the one that stays longest; the nearest if none overhead serves."""
    overhead = [candidate for candidate in situation.candidates if candidate.contact_left_ns is not None]
    if not overhead:
        return nearest(situation)
    return max(overhead, key=lambda candidate: candidate.contact_left_ns or 0).satellite


OURS: dict[str, Policy] = {"nearest": nearest, "least-loaded": least_loaded, "longest-contact": longest_contact}


def policy_of(target: str) -> Policy | None:
    """The policy that a scenario names; None if who is asked is known before the run.

    Raises:
        ScenarioError: it is a user's function, and cannot be imported.
    """
    return user_function(target, "questions.target", 1) if ":" in target else OURS.get(target)
