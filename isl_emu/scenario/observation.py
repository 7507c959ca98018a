"""Earth observation: satellites take images, a small vision model looks at them in orbit, and the answer goes down."""

from __future__ import annotations

import difflib
import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from pydantic import Field, model_validator

from isl_emu.limits import LOOKS, OBSERVATIONS
from isl_emu.scenario.boards import Board, board_named, read_data
from isl_emu.scenario.compute import BoardName
from isl_emu.scenario.constellation import Constellation
from isl_emu.scenario.matching import Satellites, Stations, matching, near_name, unknown, unmatched
from isl_emu.scenario.quantities import Delay, Duration, Latitude, Longitude, NodeName, Range, Record, Size
from isl_emu.scenario.sites import site_place
from isl_emu.units import DURATION_NS, NS_PER_S, format_quantity

PLACEMENTS = ("on-board", "nearest-free", "earliest-answer", "ground")
IMAGE, ANSWER = "{image}", "{answer}"  # in a command: the files that it reads and writes
MIB = 1024 * 1024
LOOK_NS = NS_PER_S  # between two looks at where satellites are, for passes: 7 km on the ground


@dataclass(frozen=True)
class VisionModel:
    """A vision model: what one look at one tile of an image takes."""

    name: str
    description: str
    operations: float
    parameters: float
    source: str

    def look_ns(self, board: Board, bits: int) -> float:
        """The time of one look: a roofline, bound by arithmetic or by reading the weights, and the board's t0.

        Neglected: what the layers write and read between them. What share of its arithmetic a board reaches is
        known for language models' prompts, not for these.

        Args:
            bits: of a weight, 4, 8 or 16.
        """
        arithmetic_s = self.operations / (board.eta_c * board.fp16_flop_s)
        memory_s = self.parameters * bits / 8 / (board.eta[bits] * board.memory_bandwidth_byte_s)
        return board.t0_ns + max(arithmetic_s, memory_s) * NS_PER_S


VISION_MODELS: Mapping[str, VisionModel] = MappingProxyType(
    {name: VisionModel(name, **table) for name, table in read_data("vision_models.toml").items()}
)


class Area(Record):
    """A circle on the ground; a `site` of the catalogue has latitude and longitude."""

    latitude_rad: Latitude = Field(alias="latitude")
    longitude_rad: Longitude = Field(alias="longitude")
    radius_km: Range = Field(alias="radius")

    @model_validator(mode="before")
    @classmethod
    def _at_site(cls, table: Any) -> Any:
        if isinstance(table, dict) and "site" in table:
            table = dict(table)
            place = site_place(str(table.pop("site")))
            table = {"latitude": place["latitude"], "longitude": place["longitude"], **table}
        return table


class Observation(Record):
    """Satellites that take images, and what becomes of each.

    Images are of what is below. They come at `first` and `every` so long after it, `count` of each satellite at the
    most; with `over` only of that area, and without `every` once in each pass over it; with `daylight` only where the
    Sun is up. `size`: of an image; what is really sent is less by `rate_scale`, as the rates are. `file`: a real image,
    sent as it is. `analysts`: satellites whose computers may look at it; `placement`: which of them does, one of
    `PLACEMENTS` or a user's function. How long it takes: `compute_time`, or `model` on `board`, for each of the `tiles`
    into which an image is cut. `command`: a real program that reads the image and writes the answer, in a container
    with `cpus` and `memory`.
    """

    name: NodeName = "observation"
    satellites: Satellites = "all"
    first_ns: Delay = Field(alias="first", default=0)
    every_ns: Duration | None = Field(alias="every", default=None)
    count: int | None = Field(ge=1, le=1_000_000, default=None)
    over: Area | None = None
    daylight: bool = False
    size_byte: Size | None = Field(alias="size", default=None)
    file: str | None = None
    answer_byte: Size = Field(alias="answer", default=1_000)
    analysts: Satellites = "all"
    stations: Stations = "all"
    placement: str = "earliest-answer"
    model: str | None = None
    board: BoardName | None = None
    tiles: int = Field(ge=1, le=1_000_000, default=1)
    bits: Literal[4, 8, 16] = 8
    compute_time_ns: Duration | None = Field(alias="compute_time", default=None)
    command: tuple[str, ...] | None = Field(examples=[["python3", "look.py", IMAGE, ANSWER]], default=None)
    cpus: float = Field(gt=0.0, le=64.0, default=1.0)
    memory_byte: Size = Field(alias="memory", default=256 * MIB)
    stall_ns: Duration = Field(alias="stall", default=10 * NS_PER_S)

    @model_validator(mode="after")
    def _complete(self) -> Observation:
        if problems := list(self._problems()):
            raise ValueError("; ".join(problems))
        return self

    def _problems(self) -> Iterator[str]:
        if (self.size_byte is None) == (self.file is None):
            yield "has both or neither of size and file, but one says how large an image is; give one"
        if self.model is not None and self.model not in VISION_MODELS:
            close = difflib.get_close_matches(self.model.lower(), VISION_MODELS, n=1, cutoff=0.5)
            hint = f"did you mean {close[0]}?" if close else "choose one of them"
            yield f"model is {self.model!r}, but the vision models are {', '.join(VISION_MODELS)}; {hint}"
        if self.model is not None and self.compute_time_ns is not None:
            yield "has model and compute_time, but only one says how long a look takes; remove one"
        if self.model is not None and self.board is None:
            yield "has model, but no board says at which pace; give board"
        if self.placement != "ground" and self.model is None and self.compute_time_ns is None and not self.command:
            yield "has no model, compute_time or command, but somebody must look at the image; give one"
        if self.command is not None:
            words = set(self.command)
            if not {IMAGE, ANSWER} <= words:
                yield f"command is {shlex.join(self.command)!r}, but it reads {IMAGE} and writes {ANSWER}; name both"
            if self.file is None:
                yield "command is given, but it needs a real image to read; give file in place of size"
        if ":" not in self.placement and self.placement not in PLACEMENTS:
            known = ", ".join(f'"{one}"' for one in PLACEMENTS)
            yield (
                f"placement is {self.placement!r}, but it is {known} or package.module:function; "
                f"{near_name(self.placement, PLACEMENTS)}"
            )

    @property
    def states_time(self) -> bool:
        """Whether it says how long an analysis takes, rather than a program."""
        return self.model is not None or self.compute_time_ns is not None

    @property
    def work_ns(self) -> int:
        """How long one image takes a computer at its full pace; 0 if nobody says."""
        if self.compute_time_ns is not None:
            stated_ns: int = self.compute_time_ns
            return stated_ns
        if self.model is None or self.board is None:
            return 0
        return round(self.tiles * VISION_MODELS[self.model].look_ns(board_named(self.board), self.bits))

    def observers(self, names: Sequence[str]) -> tuple[str, ...]:
        """The satellites that take images."""
        return matching(self.satellites, names)

    def computers(self, names: Sequence[str]) -> tuple[str, ...]:
        """The satellites that may look at one; none if all images go down."""
        if self.placement == "ground":
            return ()
        return self.observers(names) if self.placement == "on-board" else matching(self.analysts, names)

    def receivers(self, stations: Sequence[str]) -> tuple[str, ...]:
        """The stations that may get an answer."""
        return tuple(stations) if self.stations == "all" else self.stations


def observation_contradictions(observations: Sequence[Observation], constellation: Constellation) -> Iterator[str]:
    """Problems of observations that show beside the satellites, the stations and each other."""
    names, duration_ns, taken = constellation.satellite_names, constellation.time.duration_ns, set[str]()
    for index, one in enumerate(observations):
        where = f"observation[{index}]"
        yield from unmatched(f"{where}.satellites", one.satellites, names)
        yield from unmatched(f"{where}.analysts", one.analysts, names)
        yield from unknown(f"{where}.stations", one.receivers(()), constellation.station_names, "ground station")
        if not constellation.station:
            yield f"{where} is given, but there is no ground station to send answers to; add a [[station]]"
        if one.name in taken:
            yield f"{where}.name is {one.name!r}, but an earlier observation has that name; rename one"
        taken.add(one.name)
        looks = (duration_ns - one.first_ns) / LOOK_NS * len(one.observers(names))
        if one.over and not one.every_ns and (excess := LOOKS.excess(looks)):
            yield f"{where}.over is given without every, which {excess}"
        if one.every_ns:
            each = min((duration_ns - one.first_ns) / one.every_ns, one.count or math.inf)
            if excess := OBSERVATIONS.excess(each * len(one.observers(names))):
                yield f"{where}.every is {format_quantity(one.every_ns, DURATION_NS)}, which {excess}"
