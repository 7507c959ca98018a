"""How much of what satellites have computed of conversations is expected to move, before a run.

A turn whose satellite is drawn beforehand moves its context if that is another than the one before. Whom others ask is
known when they are asked: of these the expectation is that a context moves as often as another satellite becomes the
nearest while it is talked and thought, and is missing there as a whole.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from isl_emu.parts.prompts import text_tokens
from isl_emu.parts.questions.conversations import Conversation, Turn
from isl_emu.parts.questions.requests import PlannedRequest
from isl_emu.scenario.model import Scenario
from isl_emu.scenario.models import model_named
from isl_emu.scenario.questions import POLICIES, USERS, Questions
from isl_emu.units import NS_PER_S

NEAREST_FOR_S = 60.0  # how long a user's satellite stays the chosen one; 16 users: 38 moves in 120 s, docs/serving.md
ANSWER_S = 3.0  # what an answer takes, about

Changes = Mapping[str, Counter[tuple[str, str]]]  # of each station: from which satellite to which its nearest changed


def sent_byte_per_token(scenario: Scenario) -> float:
    """What is sent of a token that moves: keys and values of the largest model that is served, less by the scale."""
    groups = [group for group in scenario.compute if group.server == "modelled"]
    return scenario.rate_scale * max((model_named(one.model).kv_byte_per_token for one in groups), default=0)


def expected_tokens(
    scenario: Scenario, questions: Questions, turns: float, conversations: Sequence[Conversation]
) -> float:
    """How many tokens move, as far as a scenario tells.

    Args:
        turns: how many are expected in all.
        conversations: those of the file.
    """
    contexts = [tokens for one in conversations for tokens in _contexts(one)]
    if not contexts:
        return 0.0
    later = turns * len(contexts) / sum(len(one.turns) for one in conversations)
    serving = len(scenario.serving_satellites)
    if questions.target == POLICIES[0]:
        moves = later * (1 - 1 / max(1, serving))
    elif not questions.decides_live:
        moves = 0.0
    elif questions.arrivals == USERS:
        talking_s = scenario.time.duration_ns / NS_PER_S * (questions.users_per_station or 0)
        moves = min(later, talking_s * len(scenario.asking_stations) / NEAREST_FOR_S)
    else:
        pause_s = (questions.think_time.mean_ns / NS_PER_S if questions.think_time else 0.0) + ANSWER_S
        moves = later * min(1.0, pause_s / NEAREST_FOR_S)
    return moves * sum(contexts) / len(contexts)


def _contexts(conversation: Conversation) -> Iterator[int]:
    """Of each turn but the first, how many tokens the satellite that answered the one before has read."""
    read = 0
    for turn in conversation.turns[:-1]:
        read += _new_tokens(turn)
        yield read


def _new_tokens(turn: Turn | PlannedRequest) -> int:
    """What a satellite reads of a turn besides what was said before."""
    return sum(text_tokens(text) for _, text in turn.before) + text_tokens(turn.question)


def expected_moves(
    requests: Iterable[PlannedRequest], changes: Changes, duration_ns: int
) -> dict[tuple[str, str], float]:
    """How many tokens move from which satellite to which, by the questions that are drawn.

    Args:
        changes: where questions are that whom they ask is decided when they are sent.
        duration_ns: of the run.
    """
    moved, read = defaultdict[tuple[str, str], float](float), dict[int, tuple[PlannedRequest, int]]()
    for request in requests:
        earlier, context = read.get(-1 if request.after is None else request.after, (None, 0))
        goes_on = earlier is not None and request.continues(earlier)
        read[request.id] = request, _new_tokens(request) + (context if goes_on else 0)
        if not goes_on or earlier is None:
            continue
        if request.satellite and earlier.satellite:
            if request.satellite != earlier.satellite:
                moved[earlier.satellite, request.satellite] += context
            continue
        pause_ns = request.think_ns + ANSWER_S * NS_PER_S
        seen = changes.get(request.station, Counter())
        share = min(1.0, pause_ns * seen.total() / duration_ns)
        for pair, count in seen.items():
            moved[pair] += context * share * count / seen.total()
    return moved
