"""A policy in Python: which satellite answers a question; docs/serving.md explains it."""

from isl_emu import Situation


def choose(situation: Situation) -> str:
    """The nearest satellite with an empty queue, else the one that stays longest overhead."""
    idle = [candidate for candidate in situation.candidates if candidate.queue == 0]
    if idle:
        return idle[0].satellite
    return max(situation.candidates, key=lambda candidate: candidate.contact_left_ns or 0).satellite
