"""Traffic of a user's own: programs that run in nodes, and workloads written in Python."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterator, Sequence
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from isl_emu.limits import STARTS
from isl_emu.scenario.matching import repeated, unknown
from isl_emu.scenario.quantities import Delay, Duration, NodeName, NodeNames, Record, Size, UserFunction
from isl_emu.units import DURATION_NS, format_quantity

MIB = 1024 * 1024
RESERVED = frozenset({  # tables of our own
    *("plan", "instants", "changes", "load", "outside", "pauses", "incidents", "drops", "links", "path_changes"),
    *("requests", "attempts", "polls", "serving", "serving_slices", "captures", "observations"),
    *("servers", "split", "kv_handovers", "transfers", "deliveries", "probes", "energy", "programs", "program_cpu"),
    *("training", "faults", "convergence", "outages", "route_changes", "substrate"),
})  # fmt: skip
OURS = "ISL_EMU_"  # begins the names of variables that isl-emu sets itself
ONE_NODE = ("contact-begins", "contact-ends", "handover")  # what may be narrowed down to one other node


def _variables(given: dict[str, str]) -> dict[str, str]:
    for name, value in given.items():
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) or name.startswith(OURS):
            raise ValueError(
                f"has a variable {name!r}, but its name is letters, digits and underscores and does not begin with "
                f"{OURS}; rename it"
            )
        if "\0" in value:
            raise ValueError(f"sets {name} to a text with a zero byte, but no program can get one; take it out")
    return given


def _words(given: tuple[str, ...]) -> tuple[str, ...]:
    if any("\0" in word for word in given):
        raise ValueError("has a word with a zero byte, but no program can get one; take it out")
    return given


def _folder(path: str) -> str:
    if not path or "\0" in path or ".." in PurePosixPath(path).parts:
        raise ValueError(
            f'is {path!r}, but it is a folder of its node, without ".."; name one, whole or from its files'
        )
    return path


class Program(Record):
    """A program that is started in a node while the sky moves, as its user would: iperf3, curl, a server.

    It is ended with the run, or after `duration_ns`; its exit status is recorded, and no failure of the run. That it is
    killed, cannot be run or fails within a second makes the run invalid, unless it `may_fail`. It runs in
    its node's container. `cpus`: share of one core that the container has for it; without it, it shares what is there
    for other things, and has a whole core where there is nothing else. `memory`: that the container has for it.
    `cpu_time`: "stated" by the program itself (`isl_emu.compute`) in exact time, where computing takes none.

    It is started once, each `repeat`, or on what the plan holds for the node `of` (else its own), and there for `peer`
    alone if that is named; never before `at_ns`, and never beside itself. `env` is beside the usual environment.

    `command` goes before the entry point of its node's image, and may be left out there; then `args` go before the
    image's own. `may_route`: it may change routes, addresses and links of its node, where `routing.policy` is "none".
    """

    name: NodeName
    node: NodeName
    command: Annotated[tuple[str, ...], AfterValidator(_words)] = Field(
        examples=[["iperf3", "-c", "p00s03"]], default=()
    )
    args: Annotated[tuple[str, ...], AfterValidator(_words)] = Field(examples=[["--verbose"]], default=())
    at_ns: Delay = Field(alias="at", default=0)
    repeat_ns: Duration | None = Field(alias="repeat", default=None)
    on: Literal["contact-begins", "contact-ends", "handover", "fault", "step"] | None = None
    of: NodeName | None = None
    peer: NodeName | None = None
    env: Annotated[dict[str, str], AfterValidator(_variables)] = Field(
        examples=[{"MODE": "fast"}], default_factory=dict
    )
    cwd: Annotated[str, AfterValidator(_folder)] | None = None
    duration_ns: Duration | None = Field(alias="duration", default=None)
    may_fail: bool = False
    may_route: bool = False
    cpus: float | None = Field(gt=0.0, le=64.0, default=None)
    cpu_time: Literal["stated"] | None = None
    memory_byte: Size = Field(alias="memory", default=256 * MIB)

    @property
    def told(self) -> str:
        """What it runs, as a user writes it."""
        return shlex.join(self.command) or shlex.join(("the entry point of its image", *self.args))

    @property
    def awaited(self) -> str:
        """What it waits for, in words."""
        peer = f" with {self.peer}" if self.peer else ""
        return f"{self.on} of {self.of or self.node}{peer}"

    @model_validator(mode="after")
    def _one_way_to_start(self) -> Program:
        if self.on and self.repeat_ns:
            raise ValueError("has on and repeat, but it starts on what happens or in a rhythm; leave one out")
        if self.command and self.args:
            raise ValueError(
                "has command and args, but args are those of an image's entry point; write them into command"
            )
        if self.of and self.on in (None, "step"):
            raise ValueError('has of, but nothing of a node is waited for; set on to "contact-begins" or the like')
        if self.peer and self.peer == (self.of or self.node):
            raise ValueError(
                f"has peer {self.peer}, but that is the node for which it waits; name the other end of the contact"
            )
        if self.peer and self.on not in ONE_NODE:
            raise ValueError(f"has peer, but only {', '.join(ONE_NODE)} are between two nodes; set on to one of them")
        return self


class UserWorkload(Record):
    """A workload in Python: a function that is called when the run begins, in a process of its own.

    The process runs in the container of the first of its nodes. It gets an `isl_emu.WorkloadContext`, with `options` as
    they stand in the scenario. `cpus`, `memory`, `cpu_time`: that each of its nodes has for it, as for a program.
    """

    name: NodeName
    function: UserFunction
    nodes: NodeNames = Field(min_length=1)
    options: dict[str, Any] = Field(examples=[{"flows": 4}], default_factory=dict)
    cpus: float | None = Field(gt=0.0, le=64.0, default=None)
    cpu_time: Literal["stated"] | None = None
    memory_byte: Size = Field(alias="memory", default=512 * MIB)

    @model_validator(mode="after")
    def _name_of_a_table(self) -> UserWorkload:
        if self.name in RESERVED:
            raise ValueError(f"name is {self.name!r}, but that is a table of isl-emu's own; choose another")
        return self


def program_contradictions(
    programs: Sequence[Program],
    workloads: Sequence[UserWorkload],
    nodes: Collection[str],
    duration_ns: int,
    with_image: Collection[str],
    handed_over: bool,
) -> Iterator[str]:
    """Problems of programs and workloads that show beside the nodes, the length of the run, and each other.

    Args:
        with_image: the nodes that have an image.
        handed_over: whether routes are made by others than isl-emu.
    """
    yield from repeated("program or workload", [*(one.name for one in programs), *(one.name for one in workloads)])
    for program in programs:
        yield from unknown(f"program {program.name}: node", (program.node,), nodes, "node")
        yield from unknown(f"program {program.name}: of", [program.of] if program.of else (), nodes, "node")
        yield from unknown(f"program {program.name}: peer", [program.peer] if program.peer else (), nodes, "node")
        if not program.command and program.node not in with_image:
            yield (
                f"program {program.name}: command is missing, but only an image has an entry point, and "
                f"{program.node} has none; say what to run"
            )
        if program.may_route and not handed_over:
            yield (
                f'program {program.name}: may_route is true, but routes are isl-emu\'s; set routing.policy to "none"'
            )
        if program.repeat_ns and (excess := STARTS.excess((duration_ns - program.at_ns) / program.repeat_ns)):
            repeat = format_quantity(program.repeat_ns, DURATION_NS)
            yield f"program {program.name}: repeat is {repeat}, which {excess}"
        if program.at_ns >= duration_ns:
            yield f"program {program.name}: at is after the end of the run, so it never starts; lengthen time.duration"
    for workload in workloads:
        yield from unknown(f"workload {workload.name}: nodes", workload.nodes, nodes, "node")
