"""The users of a run: what they ask of the satellites, when, from where, and what they expect of an answer."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from isl_emu.limits import PROBES, QUESTIONS, duration_text, size_text
from isl_emu.scenario.ground import GroundStation
from isl_emu.scenario.matching import Stations, near_name, unknown
from isl_emu.scenario.quantities import Delay, Duration, NodeName, Record
from isl_emu.units import DURATION_NS, NS_PER_S, format_quantity

OPEN = ("poisson", "gamma")  # arrivals that wait for nobody
CLOSED = ("single-stream", "offline")  # arrivals that a number ends
POLICIES = ("uniform", "nearest", "least-loaded", "longest-contact")
QUESTION_BYTE, QUESTION_S = 1_000, 50e-6  # to hold and to draw, measured
POLL_INTERVAL_NS = 5 * NS_PER_S  # of the policy that needs it, where none is given

Weight = Annotated[float, Field(gt=0.0)]


class Trace(Record):
    """A recorded series of requests that is replayed: when each came, and how long it and its answer were."""

    file: str
    format: Literal["auto", "burstgpt", "azure", "mooncake"] = "auto"
    speed_up: float = Field(gt=0.0, le=1e9, default=1.0)
    offset_ns: Delay = Field(alias="offset", default=0)
    limit: int | None = Field(ge=1, le=1_000_000_000, default=None)
    token_scale: float = Field(gt=0.0, le=1.0, default=1.0)


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
    list; where there is none they come from `prompt_file`, "bundled" or a file of JSON lines. `users`: how they are
    spread over the stations. `warm_up`: questions due before it count in no figure. `slice`: figures of each such time
    as well.
    """

    arrivals: Literal["poisson", "gamma", "single-stream", "offline", "trace"] = "poisson"
    mean_interval_ns: Duration | None = Field(alias="mean_interval", default=None)
    burstiness: Weight | None = None
    count: int | None = Field(ge=1, le=1_000_000_000, default=None)
    trace: Trace | None = None
    start_after_ns: Delay = Field(alias="start_after", default=0)
    stop_after_ns: Duration | None = Field(alias="stop_after", default=None)
    warm_up_ns: Delay = Field(alias="warm_up", default=0)
    slice_ns: Duration | None = Field(alias="slice", default=None)
    stations: Stations = "all"
    users: Literal["equal", "population"] | dict[NodeName, Weight] = "equal"
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
    prompts: tuple[str, ...] | None = Field(min_length=1, default=None)
    prompt_file: str = "bundled"

    @model_validator(mode="before")
    @classmethod
    def _implied(cls, table: Any) -> Any:
        """What follows from other keys: a trace says when requests arrive, and who looks for short queues polls."""
        if isinstance(table, dict) and "trace" in table:
            table = {"arrivals": "trace", **table}
        if isinstance(table, dict) and table.get("target") == "least-loaded":
            table = {"poll_interval": format_quantity(POLL_INTERVAL_NS, DURATION_NS), **table}
        return table

    @model_validator(mode="after")
    def _fits_the_arrivals(self) -> Questions:
        needed = {
            "mean_interval": (self.mean_interval_ns, OPEN),
            "burstiness": (self.burstiness, ("gamma",)),
            "count": (self.count, CLOSED),
            "trace": (self.trace, ("trace",)),
        }
        for key, (value, kinds) in needed.items():
            if (value is not None) != (self.arrivals in kinds):
                found = "given" if value is not None else "missing"
                rule = "belongs to arrivals " + " and ".join(f'"{kind}"' for kind in kinds)
                what = "remove it" if value is not None else "add it"
                raise ValueError(f'{key} is {found} with arrivals "{self.arrivals}", but it {rule}; {what}')
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
        return self

    def expected(self, stations: int, duration_ns: int) -> float:
        """About how many questions come in a run; of a trace nothing is known before it is read."""
        if self.mean_interval_ns:
            end_ns = duration_ns if self.stop_after_ns is None else min(self.stop_after_ns, duration_ns)
            return max(0, end_ns - self.start_after_ns) / self.mean_interval_ns
        return (self.count or 0) * (stations if self.arrivals == "single-stream" else 1)

    @property
    def files(self) -> tuple[str, ...]:
        """The files of the user's that are read."""
        named = (self.trace.file if self.trace else None, self.prompt_file)
        return tuple(name for name in named if name not in (None, "bundled"))

    @property
    def decides_live(self) -> bool:
        """Whether who is asked depends on where the satellites are when the question is sent."""
        return self.target in POLICIES[1:] or ":" in self.target

    def asking(self, stations: Sequence[str]) -> tuple[str, ...]:
        """The stations from which questions come, of all that there are."""
        return tuple(stations) if self.stations == "all" else self.stations


def _written(questions: Questions) -> str:
    """How many, as the scenario says it."""
    return str(questions.count) if questions.count else format_quantity(questions.mean_interval_ns or 0, DURATION_NS)


def question_contradictions(
    questions: Questions, stations: Sequence[GroundStation], serving: Sequence[str], duration_ns: int
) -> Iterator[str]:
    """Problems of the questions that show beside the stations, and the satellites that can be asked."""
    names = [station.name for station in stations]
    asking = questions.asking(names)
    if not serving:
        yield "questions is given, but no satellite runs a model; add a [compute] table"
    if not stations:
        yield "questions is given, but there is no ground station to ask them; add a [[station]]"
    yield from unknown("questions.stations", asking, names, "ground station")
    if questions.warm_up_ns >= duration_ns:
        warm_up, duration = (format_quantity(one, DURATION_NS) for one in (questions.warm_up_ns, duration_ns))
        yield f"questions.warm_up is {warm_up}, but the run takes {duration}, and figures are of the rest; shorten it"
    asked = questions.expected(len(asking), duration_ns)
    if excess := QUESTIONS.excess(
        asked, f"{size_text(asked * QUESTION_BYTE)}, {duration_text(asked * QUESTION_S)} to draw"
    ):
        key = "count" if questions.count else "mean_interval"
        yield f"questions.{key} is {_written(questions)}, which {excess}"
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
