"""The satellites that compute: groups of them that run a model server of one kind, and what each server gets."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from string import Formatter
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from isl_emu.scenario.boards import board_named
from isl_emu.scenario.matching import Satellites, matching, unmatched
from isl_emu.scenario.models import Roofline, model_named
from isl_emu.scenario.quantities import Record, Size

BUNDLED = "bundled"
BUNDLED_MODEL = "smollm2-135m"  # what the bundled file holds
SLOTS = 8  # answers that a board gives at once
BITS = 4  # of a weight there
PLACES = {"host", "port", "model", "satellite"}  # in a command
HEALTH_PATH = "/health"
GB = 1e9


@dataclass(frozen=True)
class ServerTraits:
    """What the rest of a scenario may count on with servers of one kind; what they do is in parts/serving.

    Args:
        keys: that this kind has, and not every one.
        llama: they are llama.cpp's, load a file of weights and keep conversations in files.
        may_wait: they can be started during the run, when their model has come.
    """

    keys: tuple[str, ...] = ()
    llama: bool = False
    may_wait: bool = False


PACE_KEYS = ("pace_model", "slots", "bits")  # of a board that stands for real servers in exact time
SERVERS = {
    "real": ServerTraits(PACE_KEYS, llama=True, may_wait=True),
    "throttled": ServerTraits(("decode_tokens_s", *PACE_KEYS), llama=True),
    "modelled": ServerTraits(("slots", "bits")),
    "external": ServerTraits(("command", "health", "url", "key_variable")),
}


def _command(text: str) -> str:
    """A command line of words and of {host}, {port}, {model} and {satellite}."""
    try:
        words = shlex.split(text)
        found = {field for _, field, _, _ in Formatter().parse(text) if field is not None}
    except ValueError as error:
        raise ValueError(f"is {text!r}, but that is no command line ({error}); correct it") from None
    if not words or not found <= PLACES:
        raise ValueError(
            f"is {text!r}, but it must be a command with {' '.join(f'{{{place}}}' for place in sorted(PLACES))} where "
            "those belong; write other braces twice"
        )
    return text


def _known_board(name: str) -> str:
    board_named(name)
    return name


def _http_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"is {url!r}, but it must be a URL such as http://gpu.example:8000; write it out")
    return url


BoardName = Annotated[str, AfterValidator(_known_board)]
Command = Annotated[str, AfterValidator(_command)]
Url = Annotated[str, AfterValidator(_http_url)]


class Compute(Record):
    """A group of satellites that run a model server, and what each server gets.

    `satellites`: "all", or a list of node names and patterns. `server`: "real" is llama.cpp; "throttled" the same, held
    to the pace of a slower board; "modelled" streams real bytes at the pace of a board's roofline; "external" is a
    program or a URL of the user's. `cpus`: share of one core. `model`: "bundled" or a GGUF file; for a modelled server
    the name of a model. `pace_model`: the name of the model whose pace on `board` a real server has in exact time.
    `docs/servers.md` describes the rest.
    """

    satellites: Satellites = "all"
    server: Literal["real", "throttled", "modelled", "external"] = "real"
    board: BoardName | None = None
    cpus: float = Field(gt=0.0, le=64.0, default=1.0)
    memory_byte: Size = Field(alias="memory", default=512 * 1024 * 1024)
    model: str = BUNDLED
    pace_model: str | None = None
    context_tokens: int = Field(ge=64, le=100_000_000, default=1024)
    decode_tokens_s: float | None = Field(gt=0.0, le=1e9, default=None)
    slots: int | None = Field(ge=1, le=1024, default=None)
    bits: Literal[4, 8, 16] | None = None
    command: Command | None = None
    health: str | None = Field(pattern="^/", default=None)
    url: Url | None = None
    key_variable: str | None = Field(pattern="^[A-Za-z_][A-Za-z0-9_]*$", default=None)

    @model_validator(mode="after")
    def _fits_the_kind(self) -> Compute:
        if problems := list(self._problems()):
            raise ValueError("; ".join(problems))
        return self

    def _problems(self) -> Iterator[str]:
        for key in dict.fromkeys(key for traits in SERVERS.values() for key in traits.keys):
            if key not in self.traits.keys and getattr(self, key) is not None:
                owners = ", ".join(f'"{owner}"' for owner, traits in SERVERS.items() if key in traits.keys)
                yield f'{key} is given for a server that is "{self.server}", but it belongs to {owners}; remove it'
        if self.server == "throttled" and self.board is None and self.decode_tokens_s is None:
            yield 'server is "throttled", but neither board nor decode_tokens_s says to which pace; give one of them'
        if self.server == "external" and (self.command is None) == (self.url is None):
            yield 'server is "external", but then one of command and url says which; give one of them'
        if self.traits.llama:
            yield from self._pace_key_problems()
        if self.server == "modelled" and self.board is None:
            yield 'server is "modelled", but no board says at which pace; give board'
        elif self.server == "modelled" or (self.pace_model is not None and self.board is not None):
            yield from self._roofline_problems()

    def _pace_key_problems(self) -> Iterator[str]:
        if self.pace_model is not None and self.board is None:
            yield "pace_model is given, but no board says where it has its pace; give board"
        if self.bits is not None and self.pace_model is None:
            yield "bits is given, but they are those of pace_model, and the model's file has its own; give pace_model"
        if self.slots is not None and self.board is None and self.decode_tokens_s is None:
            yield "slots is given, but they are those of a board, and a real server has one; give board"
        if self.pace_model is not None and self.decode_tokens_s is not None:
            yield "pace_model and decode_tokens_s are given, but each says at which pace; give one of them"

    def _roofline_problems(self) -> Iterator[str]:
        key = "model" if self.pace_model is None else "pace_model"
        try:
            roofline = self.roofline
        except ValueError as error:
            yield f"{key} {error}"
            return
        if self.context_tokens > roofline.model.context_tokens:
            yield (
                f"context_tokens is {self.context_tokens}, but {roofline.model.name} has at most "
                f"{roofline.model.context_tokens}; lower it"
            )
        needed_byte = roofline.memory_byte(self.context_tokens, self.board_slots)
        if needed_byte > roofline.board.memory_byte:
            yield (
                f"{key} is {roofline.model.name!r}, which needs {needed_byte / GB:.3g} GB with {self.board_slots} "
                f"slots, but {roofline.board.name} has {roofline.board.memory_byte / GB:.3g} GB; "
                "lower slots, bits or context_tokens"
            )

    @property
    def roofline(self) -> Roofline:
        """The pace of a modelled server, or of a real one that names its `pace_model`."""
        name = self.pace_model or (BUNDLED_MODEL if self.model == BUNDLED else self.model)
        return Roofline(board_named(self.board or ""), model_named(name), self.bits or BITS)

    @property
    def board_slots(self) -> int:
        """How many answers its board gives at once, where its servers have a board's pace."""
        return self.slots or SLOTS

    @property
    def traits(self) -> ServerTraits:
        """What its kind of servers is like."""
        return SERVERS[self.server]

    @property
    def kind(self) -> str:
        """The kind of its servers; those that are external are a program in the satellite, or outside."""
        if self.server != "external":
            return self.server
        return "external-by-url" if self.url else "external-by-command"

    @property
    def loads_file(self) -> bool:
        """Whether `model` is a file of weights that its servers load."""
        return loads_file(self.server, self.command)


def loads_file(server: str, command: str | None) -> bool:
    """Whether servers of a kind, or a program of the user's, load a file of weights."""
    return SERVERS[server].llama or "{model}" in (command or "")


Groups = Annotated[  # a single table is a list of one
    tuple[Compute, ...],
    BeforeValidator(lambda value: (value,) if isinstance(value, (dict, Compute)) else value),
]


def compute_contradictions(groups: Sequence[Compute], names: Sequence[str]) -> Iterator[str]:
    """Problems of the groups that show beside the satellites, whose names are given, and beside each other."""
    taken: dict[str, str] = {}
    for index, group in enumerate(groups):
        where = f"compute[{index}].satellites" if len(groups) > 1 else "compute.satellites"
        yield from unmatched(where, group.satellites, names)
        for name in matching(group.satellites, names):
            if name in taken:
                yield f"{where} has {name!r}, but {taken[name]} has it too; a satellite computes in one group"
            taken.setdefault(name, where)
