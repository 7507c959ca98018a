"""Who is asked next: what stations know about the satellites, put before a policy when a question is sent."""

from __future__ import annotations

import random
from collections.abc import Sequence

from isl_emu.errors import WorkloadError
from isl_emu.parts.questions.asking import Asking
from isl_emu.parts.questions.policies import Candidate, Policy, Situation
from isl_emu.parts.questions.queues import Queues
from isl_emu.parts.questions.requests import PlannedRequest
from isl_emu.parts.serving.who_serves import ServingSatellites
from isl_emu.routing.outlook import NOBODY, Outlook


class Chooser:
    """Chooses the satellite for each attempt of each question.

    Args:
        outlook: what stations can reach; needed where a policy decides.
        policy: None if who is asked first is planned.
        queues: what stations have heard of the satellites' queues.
    """

    def __init__(
        self,
        asking: Asking,
        serving: ServingSatellites,
        outlook: Outlook | None = None,
        policy: Policy | None = None,
        queues: Queues | None = None,
    ):
        self._asking, self._serving, self._outlook = asking, serving, outlook
        self._policy, self._queues = policy, queues or Queues()

    def choose(self, request: PlannedRequest, t_ns: int, tried: Sequence[str | None]) -> str | None:
        """Who is asked at `t_ns` of the run; None if nobody can be.

        Args:
            tried: who was asked before, in order.
        """
        asked = tuple(name for name in tried if name is not None)
        if self._asking.pinned:
            return request.satellite
        if asked and self._asking.retry_at == "same":
            return asked[-1]
        return self._by_policy(request, t_ns, asked) if self._policy else self._planned(request, t_ns, asked)

    def names(self, station: str, t_ns: int) -> list[str]:
        """The satellites that a station might ask at a time of the run; before its start, those of its start."""
        return [candidate.satellite for candidate in self.candidates(station, max(t_ns, 0))]

    def candidates(self, station: str, t_ns: int) -> tuple[Candidate, ...]:
        """The satellites that serve and that the station can reach, the nearest ones, by rising delay."""
        assert self._outlook is not None
        serving = self._serving.at(t_ns)
        seen = sorted(
            (delay_ns, name, hops, None if until_ns == NOBODY else until_ns - t_ns)
            for name, delay_ns, hops, until_ns in self._outlook.seen_from(station, t_ns)
            if name in serving
        )
        nearest = seen[: self._asking.candidates]
        nearest += [entry for entry in seen[self._asking.candidates :] if entry[-1] is not None]
        return tuple(
            Candidate(name, delay_ns, hops, left_ns, *self._queues.of(station, name, t_ns))
            for delay_ns, name, hops, left_ns in nearest
        )

    def _planned(self, request: PlannedRequest, t_ns: int, tried: tuple[str, ...]) -> str | None:
        """The planned satellite; where it does not serve or has failed any other that serves, by the request's seed."""
        serving = self._serving.at(t_ns).intersection(self._asking.satellites)
        if not tried and request.satellite in serving:
            return request.satellite
        others = sorted(serving.difference(tried) or serving)
        return random.Random(f"{request.seed} {len(tried)}").choice(others) if others else None

    def _by_policy(self, request: PlannedRequest, t_ns: int, tried: tuple[str, ...]) -> str | None:
        assert self._policy is not None
        candidates = self.candidates(request.station, t_ns)
        fresh = tuple(candidate for candidate in candidates if candidate.satellite not in tried)
        if not candidates:
            return None
        situation = Situation(t_ns, request.station, fresh or candidates, tried)
        return _checked(self._policy(situation), situation, self._asking.target)


def _checked(name: str | None, situation: Situation, target: str) -> str | None:
    """What a policy returned, if it is one of the candidates or nobody."""
    known = [candidate.satellite for candidate in situation.candidates]
    if name is not None and name not in known:
        raise WorkloadError(
            f"questions.target: {target} returned {name!r} for {situation.station}, but it chooses one of the "
            f"candidates ({', '.join(known)}) or None; correct the function"
        )
    return name
