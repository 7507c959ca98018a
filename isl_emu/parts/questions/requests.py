"""Which questions are asked, from where and of whom: what an arrival becomes before the run.

When they come is drawn before the run too, so a seed repeats it exactly:

    poisson        exponential gaps: independent users, who wait for nobody; MLPerf Inference's Server scenario
    gamma          gaps of a Gamma distribution with shape `burstiness` and the same mean: 1 is Poisson, less comes in
                   bursts, more is more regular; the convention of vLLM's load generator (coefficient of variation
                   1 / sqrt(burstiness))
    constant       equal gaps
    users          users who wait for their answers and think; `users.py` plans them
    single-stream  at every station one question at a time, the next when the answer is there; MLPerf's SingleStream
    offline        all at once, at the start; MLPerf's Offline
    trace          as in a recorded series

All but users and single-stream are open loops: nothing waits for an earlier answer, so a slow network cannot hide its
queue. A ramp makes the rate of such arrivals follow a course over time: see `Ramp`.
Sources: MLPerf Inference rules (github.com/mlcommons/inference_policies); vLLM's `vllm bench serve`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate, count
from typing import Any

import numpy as np

from isl_emu.errors import ScenarioError
from isl_emu.limits import QUESTIONS
from isl_emu.parts.prompts import (
    CHARACTERS_PER_TOKEN,
    MOST_CHARACTERS_PER_TOKEN,
    read_prompts,
    shuffled_for_ever,
    text_of_blocks,
    text_of_length,
)
from isl_emu.parts.questions.conversations import Conversation, Message, read_conversations
from isl_emu.parts.questions.ramp import Ramp
from isl_emu.parts.questions.traces import TracedRequest, read_trace
from isl_emu.scenario.questions import Questions, ThinkTime


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
    mean_ns, shape, rng = course.questions.interval_ns or 0, course.questions.burstiness or 1.0, course.rng
    return _along_the_ramp(course, accumulate(rng.gamma(shape, mean_ns / shape) for _ in count()))


def constant(course: ArrivalCourse) -> Iterator[Arrival]:
    """Equal gaps; the first question comes after one."""
    return _along_the_ramp(course, (number * (course.questions.interval_ns or 0) for number in count(1)))


def _along_the_ramp(course: ArrivalCourse, full_load_ns: Iterable[float]) -> Iterator[Arrival]:
    """Arrivals of the full load at the times at which they come under the ramp, if there is one."""
    ramp = Ramp(course.questions.ramp) if course.questions.ramp else None
    for full_ns in full_load_ns:
        t_ns = ramp.reached_ns(full_ns) if ramp else full_ns
        if t_ns >= course.end_ns:
            return
        yield Arrival(int(t_ns))


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
    "constant": constant,
    "single-stream": single_stream,
    "offline": offline,
    "trace": traced,
}


def arrivals(
    questions: Questions, stations: int, end_ns: int, rng: np.random.Generator, trace: Sequence[TracedRequest]
) -> Iterator[Arrival]:
    """All arrivals of a run before `end_ns`, in the order of their times; see `ArrivalCourse` for the rest."""
    return ARRIVALS[questions.arrivals](ArrivalCourse(questions, stations, end_ns, rng, trace))


SEED_RANGE = 2**31  # llama.cpp takes 32 bits, and its largest value means "random"


@dataclass(frozen=True)
class PlannedRequest:
    """One question.

    Args:
        t_due_ns: when it is to be sent, since the start of the run; not before the request `after` has ended.
        satellite: who is asked; None if that is decided when it is sent.
        seed: of the sampling of its answer.
        exact_length: the answer has just `max_tokens` tokens, whatever the model would say.
        reuse_prefix: the server may use what it still knows of an earlier prompt that begins alike.
        user, turn: who asks it and which of the user's questions it is, counted from 0; of closed-loop users alone.
            Of a conversation, which of its questions.
        think_ns: how long the user thinks after the end of the question before it.
        conversation, conversation_id: which one of the run it belongs to, counted from 0, and its name in the file.
        before: what the prompt says between the question before it in its conversation and this one.
        level: the share of the full load from which on this user asks.
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
    after: int | None = None
    exact_length: bool = False
    reuse_prefix: bool = False
    user: int | None = None
    turn: int | None = None
    think_ns: int = 0
    level: float = 0.0
    conversation: int | None = None
    conversation_id: str | None = None
    before: tuple[Message, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> PlannedRequest:
        """What `to_json` gave."""
        return cls(**{**record, "before": tuple((role, text) for role, text in record["before"])})

    def continues(self, earlier: PlannedRequest) -> bool:
        """Whether it is of the same conversation as the request that it waits for."""
        return self.conversation is not None and self.conversation == earlier.conversation

    def context_after(self, earlier: PlannedRequest, context: Sequence[Message]) -> tuple[Message, ...]:
        """What its prompt says before its question.

        Args:
            earlier: the request that it waits for.
            context: what that one's says.
        """
        return (*context, ("user", earlier.question), *self.before) if self.continues(earlier) else self.before


@dataclass(frozen=True)
class Asked:
    """What the planning of requests has read for a scenario: its prompts or conversations, and its trace."""

    prompts: Sequence[str]
    trace: Sequence[TracedRequest] = ()
    conversations: Sequence[Conversation] = ()


def read_asked(questions: Questions, end_ns: int) -> Asked:
    """Read the files that the questions name; a trace as far as the end of the run."""
    if questions.conversations:
        return Asked((), conversations=read_conversations(questions.conversations))
    prompts = questions.prompts or read_prompts(questions.prompt_file)
    return Asked(prompts, read_trace(questions.trace, end_ns) if questions.trace else ())


def plan_requests(
    questions: Questions,
    stations: Mapping[str, float],
    satellites: Sequence[str],
    duration_ns: int,
    rng: np.random.Generator,
    asked: Asked,
) -> list[PlannedRequest]:
    """Draw all requests of a run.

    Each prompt, or conversation, is used once, in a random order, before any is used again. The turns of a conversation
    that arrives follow each other, as far as thinking alone leaves room for them. Arrivals, stations, prompts,
    satellites, think times and seeds are drawn independently, so another target or other users leave the rest as it
    was.

    Args:
        stations: where questions come from, each with its share of the users (any positive numbers).
        satellites: who computes.
        duration_ns: of the run; questions stop at `questions.stop_after_ns` if that is earlier, and all arrivals begin
            at `questions.start_after_ns`.

    Returns:
        In the order of their times, each conversation's turns together; the same for the same generator state.
    """
    if not stations or not satellites:
        return []
    end_ns = duration_ns if questions.stop_after_ns is None else min(questions.stop_after_ns, duration_ns)
    where_rng, when_rng, what_rng, who_rng, seed_rng, think_rng = rng.spawn(6)
    names, shares = list(stations), np.array(list(stations.values()), dtype=float)
    shares /= shares.sum()
    ask = _prompts(questions, asked, what_rng)
    requests: list[PlannedRequest] = []
    last: list[int] = []  # request of each arrival
    start_ns = questions.start_after_ns
    for arrival in arrivals(questions, len(stations), end_ns - start_ns, when_rng, asked.trace):
        station = names[where_rng.choice(len(names), p=shares) if arrival.station is None else arrival.station]
        due_ns, after = start_ns + arrival.t_ns, None if arrival.after is None else last[arrival.after]
        for turn, what in enumerate(ask(arrival)):
            think_ns = think_time_ns(questions.think_time, think_rng) if turn else 0
            due_ns += think_ns
            if turn and due_ns >= end_ns:
                break
            satellite = None if questions.decides_live else questions.target
            if satellite == "uniform":
                satellite = satellites[int(who_rng.integers(len(satellites)))]
            if excess := QUESTIONS.excess(len(requests) + 1):
                raise ScenarioError(f"questions: what is asked {excess}")
            request = PlannedRequest(
                id=len(requests),
                t_due_ns=due_ns,
                station=station,
                satellite=satellite,
                temperature=questions.temperature,
                seed=int(seed_rng.integers(SEED_RANGE)),
                after=after,
                reuse_prefix=questions.reuse_prefix,
                think_ns=think_ns,
                **what,
            )
            requests.append(request)
            after = request.id
        last.append(len(requests) - 1)
    return requests


def check_fit(requests: Sequence[PlannedRequest], context_tokens: int) -> None:
    """Refuse questions that cannot fit into the model's context together with their answers.

    How many tokens a text has is the tokeniser's matter; what is refused here is too long for any. What the server
    finds too long is refused by it, and recorded.

    Raises:
        ScenarioError: some cannot; the longest is told.
    """
    needs, characters = dict[int, int](), dict[int, int]()
    by_id = {request.id: request for request in requests}
    for request in requests:
        earlier = None if request.after is None else by_id[request.after]
        said = characters[earlier.id] if earlier and request.continues(earlier) else len(request.system)
        characters[request.id] = said + sum(len(text) for _, text in request.before) + len(request.question)
        made_up = request.exact_length and request.conversation is None
        prompt_tokens = int(characters[request.id] / (CHARACTERS_PER_TOKEN if made_up else MOST_CHARACTERS_PER_TOKEN))
        needs[request.id] = prompt_tokens + request.max_tokens
    over = [number for number, tokens in needs.items() if tokens > context_tokens]
    if over:
        longest = max(over, key=needs.__getitem__)
        raise ScenarioError(
            f"questions: {len(over)} of {len(requests)} need more than compute.context_tokens = {context_tokens} "
            f"(question {longest} with its answer {needs[longest]}), but prompt and answer share the context; raise "
            "it, shorten the prompts or max_answer_tokens, leave long conversations out, or lower "
            "questions.trace.token_scale"
        )


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


Fields = dict[str, Any]  # of a `PlannedRequest`: what is asked, and how long the answer is


def conversation_fields(questions: Questions, conversation: Conversation, number: int) -> Iterator[Fields]:
    """What each turn of a conversation asks; answers are as long as the file's replies, and never longer than allowed.

    Args:
        number: which conversation of the run it is.
    """
    for turn, asked in enumerate(conversation.turns):
        most = questions.max_answer_tokens
        yield {
            "question": asked.question,
            "system": "" if conversation.has_system else questions.system,
            "max_tokens": most if asked.answer_tokens is None else min(most, asked.answer_tokens),
            "exact_length": asked.answer_tokens is not None,
            "turn": turn,
            "conversation": number,
            "conversation_id": conversation.id,
            "before": asked.before,
        }


def prompt_fields(questions: Questions, prompt: str) -> Fields:
    """What is asked without a conversation."""
    return {"question": prompt, "system": questions.system, "max_tokens": questions.max_answer_tokens}


def _prompts(questions: Questions, asked: Asked, rng: np.random.Generator) -> Callable[[Arrival], Iterable[Fields]]:
    """What an arrival asks: the next conversation's turns, the next prompt, or a text as long as its trace says."""
    prompts, scale = shuffled_for_ever(asked.prompts, rng), questions.trace.token_scale if questions.trace else 1.0
    talks, numbers = shuffled_for_ever(asked.conversations, rng), count()

    def ask(arrival: Arrival) -> Iterable[Fields]:
        traced = arrival.traced
        if asked.conversations:
            return conversation_fields(questions, next(talks), next(numbers))
        if traced is None:
            return [prompt_fields(questions, next(prompts))]
        if traced.blocks:
            text = text_of_blocks(traced.prompt_tokens, traced.blocks, scale, asked.prompts)
        else:
            text = text_of_length(traced.prompt_tokens, next(prompts), asked.prompts, rng)
        return [{**prompt_fields(questions, text), "max_tokens": traced.answer_tokens, "exact_length": True}]

    return ask
