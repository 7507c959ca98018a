"""The users of a run: what they ask of the satellites, when, from where, and what they expect of an answer."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from isl_emu.limits import PROBES, QUESTIONS, duration_text, size_text
from isl_emu.scenario.ground import GroundStation
from isl_emu.scenario.matching import Stations, near_name, unknown
from isl_emu.scenario.quantities import Delay, Duration, NodeName, Record
from isl_emu.units import DURATION_NS, NS_PER_S, format_quantity

OPEN = ("poisson", "gamma", "constant")  # arrivals that wait for nobody
CLOSED = ("single-stream", "offline")  # arrivals that a number ends
USERS = "users"  # arrivals of users who wait for their answers, and think
POLICIES = ("uniform", "nearest", "least-loaded", "longest-contact")
MOVE = "move"  # what becomes of a conversation's context whose next turn another satellite answers
QUESTION_BYTE, QUESTION_S = 1_000, 50e-6  # to hold and to draw, measured
POLL_INTERVAL_NS = 5 * NS_PER_S  # of the policy that needs it, where none is given

Weight = Annotated[float, Field(gt=0.0)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


class Trace(Record):
    """A recorded series of requests that is replayed: when each came, and how long it and its answer were."""

    file: str
    format: Literal["auto", "burstgpt", "azure", "mooncake"] = "auto"
    speed_up: float = Field(gt=0.0, le=1e9, default=1.0)
    offset_ns: Delay = Field(alias="offset", default=0)
    limit: int | None = Field(ge=1, le=1_000_000_000, default=None)
    token_scale: float = Field(gt=0.0, le=1.0, default=1.0)


class ThinkTime(Record):
    """How long a user thinks between an answer and the next question; `deviation` is a lognormal's standard one."""

    distribution: Literal["constant", "exponential", "lognormal"] = "constant"
    mean_ns: Duration = Field(alias="mean")
    deviation_ns: Duration | None = Field(alias="deviation", default=None)

    @model_validator(mode="before")
    @classmethod
    def _one_value(cls, value: Any) -> Any:
        """A duration alone is a constant."""
        if isinstance(value, str):
            return {"mean": value}
        if not isinstance(value, (dict, ThinkTime)):
            example = '{ distribution = "lognormal", mean = "5 s", deviation = "3 s" }'
            raise ValueError(
                f'is {value!r}, but it is a duration such as "5 s", or a table such as {example}; write one'
            )
        return value

    @model_validator(mode="after")
    def _deviates(self) -> ThinkTime:
        if (self.deviation_ns is not None) != (self.distribution == "lognormal"):
            found = "missing" if self.deviation_ns is None else "given"
            raise ValueError(
                f'has its deviation {found} with the distribution "{self.distribution}", but that belongs to '
                f'"lognormal"; {"add" if self.deviation_ns is None else "remove"} it'
            )
        return self


class ServiceLevels(Record):
    """What an answer must keep to count as goodput; what is not given is not asked for."""

    ttft_ns: Duration | None = Field(alias="ttft", default=None)
    tpot_ns: Duration | None = Field(alias="tpot", default=None)
    e2e_ns: Duration | None = Field(alias="e2e", default=None)

    @model_validator(mode="after")
    def _some(self) -> ServiceLevels:
        if self.ttft_ns is None and self.tpot_ns is None and self.e2e_ns is None:
            raise ValueError("is empty, but goodput needs at least one of ttft, tpot and e2e; give one")
        return self


class Questions(Record):
    """Users at the ground stations ask the satellites' model, and answers are streamed back.

    `target`: which computing satellite is asked: one of `POLICIES`, a node name, or a user's function. `prompts`: a
    list; where there is none they come from `prompt_file`, "bundled" or a file of JSON lines. `conversations`: a file
    of them, in place of prompts; what arrives then is a conversation, whose turns follow each other. `context`: what
    becomes of what a satellite has computed of one when another answers its next turn: it is computed anew there, or
    moves over the lasers. `users`: how they are spread over the stations. `ramp`: the share of the full load, 0 to 1,
    at some times after `start_after`, linear in between. `warm_up`: questions due before it count in no figure.
    `slice`: figures of each such time as well.
    """

    arrivals: Literal["poisson", "gamma", "constant", "users", "single-stream", "offline", "trace"] = "poisson"
    mean_interval_ns: Duration | None = Field(alias="mean_interval", default=None)
    rate: float | None = Field(gt=0.0, le=1e6, default=None)
    users_per_station: int | None = Field(ge=1, le=1_000_000, default=None)
    think_time: ThinkTime | None = None
    ramp: tuple[tuple[Delay, Share], ...] | None = Field(
        examples=[[["0 s", 0.0], ["60 s", 1.0]]], min_length=1, max_length=1000, default=None
    )
    burstiness: Weight | None = None
    count: int | None = Field(ge=1, le=1_000_000_000, default=None)
    trace: Trace | None = None
    start_after_ns: Delay = Field(alias="start_after", default=0)
    stop_after_ns: Duration | None = Field(alias="stop_after", default=None)
    warm_up_ns: Delay = Field(alias="warm_up", default=0)
    slice_ns: Duration | None = Field(alias="slice", default=None)
    stations: Stations = "all"
    users: Literal["equal", "population"] | dict[NodeName, Weight] = Field(
        examples=[{"gs-berlin": 2.0, "gs-lagos": 1.0}], default="equal"
    )
    target: str = "uniform"
    candidates: int = Field(ge=1, le=1000, default=8)
    poll_interval_ns: Duration | None = Field(alias="poll_interval", default=None)
    reach: int = Field(ge=1, le=10_000, default=64)
    retries: int = Field(ge=0, le=100, default=0)
    retry_at: Literal["same", "other"] = "other"
    retry_backoff_ns: Delay = Field(alias="retry_backoff", default=1_000_000_000)
    attempt_timeout_ns: Duration | None = Field(alias="attempt_timeout", default=None)
    max_answer_tokens: int = Field(ge=1, le=100_000_000, default=48)
    temperature: float = Field(ge=0.0, le=2.0, default=0.0)
    reuse_prefix: bool = False
    deadline_ns: Duration = Field(alias="deadline", default=120_000_000_000)
    slo: ServiceLevels | None = None
    system: str = ""
    prompts: tuple[str, ...] | None = Field(examples=[["Why is the sky blue?"]], min_length=1, default=None)
    prompt_file: str = "bundled"
    conversations: str | None = Field(min_length=1, default=None)
    context: Literal["recompute", "move"] = "recompute"

    @model_validator(mode="before")
    @classmethod
    def _implied(cls, table: Any) -> Any:
        """What follows from other keys: a trace says when requests arrive, and who looks for short queues polls.

        A context that moves is used where it comes.
        """
        if isinstance(table, dict) and "trace" in table:
            table = {"arrivals": "trace", **table}
        if isinstance(table, dict) and table.get("context") == MOVE:
            table = {"reuse_prefix": True, **table}
        if isinstance(table, dict) and table.get("target") == "least-loaded":
            table = {"poll_interval": format_quantity(POLL_INTERVAL_NS, DURATION_NS), **table}
        return table

    @model_validator(mode="after")
    def _fits_the_arrivals(self) -> Questions:
        if self.rate is not None and self.mean_interval_ns is not None:
            raise ValueError(
                "rate and mean_interval are both given, but each says how often questions come; remove one"
            )
        often = "mean_interval" if self.rate is None else "rate"
        needed = {
            often: (self.interval_ns, OPEN),
            "burstiness": (self.burstiness, ("gamma",)),
            "count": (self.count, CLOSED),
            "trace": (self.trace, ("trace",)),
            "users_per_station": (self.users_per_station, (USERS,)),
            "think_time": (self.think_time, (USERS,)),
            "ramp": (self.ramp, (*OPEN, USERS)),
        }
        # what may be left out, and what users may have too: who always asks again at once is ended by a number
        without = {"ramp"} | ({"think_time"} if self.count is not None else set())
        beside = {"count"} if self.arrivals == USERS else {"think_time"} if self.conversations else set()
        for key, (value, kinds) in needed.items():
            if (value is None and key in without) or (key in beside):
                continue
            if (value is not None) != (self.arrivals in kinds):
                found = "given" if value is not None else "missing"
                rule = "belongs to arrivals " + " and ".join(f'"{kind}"' for kind in kinds)
                what = "remove it" if value is not None else "add it"
                raise ValueError(f'{key} is {found} with arrivals "{self.arrivals}", but it {rule}; {what}')
        return self

    @model_validator(mode="after")
    def _rises_in_time(self) -> Questions:
        times = [t_ns for t_ns, _ in self.ramp or ()]
        if any(later <= earlier for earlier, later in pairwise(times)):
            raise ValueError(
                "ramp has times that do not rise, but each of its points is later than the one before; sort it"
            )
        return self

    @model_validator(mode="after")
    def _starts_before_it_stops(self) -> Questions:
        if self.stop_after_ns is not None and self.start_after_ns >= self.stop_after_ns:
            raise ValueError("start_after is not before stop_after, but questions arrive in between; correct one")
        return self

    @model_validator(mode="after")
    def _one_source_of_prompts(self) -> Questions:
        if self.prompts is not None and self.prompt_file != "bundled":
            raise ValueError("prompts and prompt_file are both given, but questions come from one; remove the other")
        others = {"prompts": self.prompts, "prompt_file": self.prompt_file != "bundled", "trace": self.trace}
        for key, given in others.items():
            if self.conversations is not None and given:
                raise ValueError(
                    f"conversations and {key} are both given, but what is asked comes from one; remove the other"
                )
        return self

    @model_validator(mode="after")
    def _has_a_context_to_move(self) -> Questions:
        if self.context == MOVE and self.conversations is None:
            raise ValueError(
                'context is "move", but only conversations have turns whose context can; give conversations'
            )
        if self.context == MOVE and not self.reuse_prefix:
            raise ValueError(
                'context is "move" and reuse_prefix false, but what has moved is of use only where servers may know '
                "it; remove reuse_prefix"
            )
        return self

    def expected(self, stations: int, duration_ns: int) -> float:
        """About how many questions come in a run; of users, at the most, as if answers took no time.

        Of conversations, how many come, with `users` how many turns. Of a trace nothing is known before it is read.
        """
        end_ns = duration_ns if self.stop_after_ns is None else min(self.stop_after_ns, duration_ns)
        if self.interval_ns:
            return max(0, end_ns - self.start_after_ns) / self.interval_ns
        if self.users_per_station:
            thoughts = max(0, end_ns - self.start_after_ns) / self.think_time.mean_ns if self.think_time else math.inf
            return self.users_per_station * stations * min(self.count or math.inf, 1 + thoughts)
        return (self.count or 0) * (stations if self.arrivals == "single-stream" else 1)

    @property
    def interval_ns(self) -> float | None:
        """The mean time between two open arrivals at full load."""
        return self.mean_interval_ns if self.rate is None else NS_PER_S / self.rate

    @property
    def files(self) -> tuple[str, ...]:
        """The files of the user's that are read."""
        named = (self.trace.file if self.trace else None, self.prompt_file, self.conversations)
        return tuple(name for name in named if name not in (None, "bundled"))

    @property
    def decides_live(self) -> bool:
        """Whether who is asked depends on where the satellites are when the question is sent."""
        return self.target in POLICIES[1:] or ":" in self.target

    def asking(self, stations: Sequence[str]) -> tuple[str, ...]:
        """The stations from which questions come, of all that there are."""
        return tuple(stations) if self.stations == "all" else self.stations


def _written(questions: Questions) -> tuple[str, str]:
    """The key that says how many, and how the scenario says it."""
    if questions.users_per_station:
        return "users_per_station", str(questions.users_per_station)
    if questions.count:
        return "count", str(questions.count)
    if questions.rate:
        return "rate", f"{questions.rate:g}"
    return "mean_interval", format_quantity(questions.mean_interval_ns or 0, DURATION_NS)


def question_contradictions(
    questions: Questions,
    stations: Sequence[GroundStation],
    serving: Sequence[str],
    duration_ns: int,
    servers: Sequence[str],
) -> Iterator[str]:
    """Problems of the questions that show beside the stations, and the satellites that can be asked.

    Args:
        servers: the kinds of these satellites' servers.
    """
    names = [station.name for station in stations]
    asking = questions.asking(names)
    if not serving:
        yield "questions is given, but no satellite runs a model; add a [compute] table"
    if not stations:
        yield "questions is given, but there is no ground station to ask them; add a [[station]]"
    yield from unknown("questions.stations", asking, names, "ground station")
    if questions.context == MOVE and (others := sorted({kind for kind in servers if kind != "modelled"})):
        kinds = " and ".join(f'"{kind}"' for kind in others)
        yield (
            f'questions.context is "move", but some servers are {kinds}, and only modelled ones pass on what they have '
            'computed; give all of them server = "modelled", or let it be computed anew ("recompute")'
        )
    if questions.warm_up_ns >= duration_ns:
        warm_up, duration = (format_quantity(one, DURATION_NS) for one in (questions.warm_up_ns, duration_ns))
        yield f"questions.warm_up is {warm_up}, but the run takes {duration}, and figures are of the rest; shorten it"
    asked = questions.expected(len(asking), duration_ns)
    if excess := QUESTIONS.excess(
        asked, f"{size_text(asked * QUESTION_BYTE)}, {duration_text(asked * QUESTION_S)} to draw"
    ):
        key, value = _written(questions)
        yield f"questions.{key} is {value}, which {excess}"
    polls = len(asking) * questions.candidates * duration_ns / (questions.poll_interval_ns or math.inf)
    if excess := PROBES.excess(polls):
        interval = format_quantity(questions.poll_interval_ns or 0, DURATION_NS)
        yield f"questions.poll_interval is {interval}, which with its candidates {excess}"
    if isinstance(questions.users, dict):
        yield from unknown("questions.users", questions.users, asking, "asking station")
        for name in asking:
            if name not in questions.users:
                yield f"questions.users leaves out {name!r}, but every asking station has a weight; add it"
    if questions.users == "population":
        for station in stations:
            if station.name in asking and station.population is None:
                yield (
                    f'questions.users is "population", but station {station.name} has none; give it a population, '
                    f"or a city as its site"
                )
    if ":" not in questions.target and questions.target not in {*POLICIES, *serving}:
        policies = ", ".join(f'"{policy}"' for policy in POLICIES)
        rule = f"it is {policies}, package.module:function or a computing satellite"
        yield f"questions.target is {questions.target!r}, but {rule}; {near_name(questions.target, POLICIES)}"
