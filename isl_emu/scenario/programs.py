"""Traffic of a user's own: programs that run in nodes, and workloads written in Python."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any, Literal

from pydantic import Field, model_validator

from isl_emu.scenario.matching import repeated, unknown
from isl_emu.scenario.quantities import Delay, Duration, NodeName, Record, Size, UserFunction

MIB = 1024 * 1024
RESERVED = frozenset({  # tables of our own
    *("plan", "instants", "changes", "load", "outside", "pauses", "incidents", "drops", "links", "path_changes"),
    *("requests", "attempts", "polls", "serving", "captures"),
    *("servers", "split", "kv_handovers", "transfers", "deliveries", "probes", "energy", "programs", "program_cpu"),
    *("training", "faults"),
})  # fmt: skip


class Program(Record):
    """A program that is started in a node while the sky moves, as its user would: iperf3, curl, a server.

    It is ended with the run, or after `duration_ns`; its exit status is recorded, and no failure of the run. That it is
    killed, cannot be run or fails within a second makes the run invalid, unless it `may_fail`. It runs in
    its node's container. `cpus`: share of one core that the container has for it; without it, it shares what is there
    for other things, and has a whole core where there is nothing else. `memory`: that the container has for it.
    `cpu_time`: "stated" by the program itself (`isl_emu.compute`) in exact time, where computing takes none.
    """

    name: NodeName
    node: NodeName
    command: tuple[str, ...] = Field(min_length=1)
    at_ns: Delay = Field(alias="at", default=0)
    duration_ns: Duration | None = Field(alias="duration", default=None)
    may_fail: bool = False
    cpus: float | None = Field(gt=0.0, le=64.0, default=None)
    cpu_time: Literal["stated"] | None = None
    memory_byte: Size = Field(alias="memory", default=256 * MIB)


class UserWorkload(Record):
    """A workload in Python: a function that is called when the run begins, in a process of its own.

    The process runs in the container of the first of its nodes. It gets an `isl_emu.WorkloadContext`, with `options` as
    they stand in the scenario. `cpus`, `memory`, `cpu_time`: that each of its nodes has for it, as for a program.
    """

    name: NodeName
    function: UserFunction
    nodes: tuple[NodeName, ...] = Field(min_length=1)
    options: dict[str, Any] = Field(default_factory=dict)
    cpus: float | None = Field(gt=0.0, le=64.0, default=None)
    cpu_time: Literal["stated"] | None = None
    memory_byte: Size = Field(alias="memory", default=512 * MIB)

    @model_validator(mode="after")
    def _name_of_a_table(self) -> UserWorkload:
        if self.name in RESERVED:
            raise ValueError(f"name is {self.name!r}, but that is a table of isl-emu's own; choose another")
        return self


def program_contradictions(
    programs: Sequence[Program], workloads: Sequence[UserWorkload], nodes: Collection[str], duration_ns: int
) -> Iterator[str]:
    """Problems of programs and workloads that show beside the nodes, the length of the run, and each other."""
    yield from repeated("program or workload", [*(one.name for one in programs), *(one.name for one in workloads)])
    for program in programs:
        yield from unknown(f"program {program.name}: node", (program.node,), nodes, "node")
        if program.at_ns >= duration_ns:
            yield f"program {program.name}: at is after the end of the run, so it never starts; lengthen time.duration"
    for workload in workloads:
        yield from unknown(f"workload {workload.name}: nodes", workload.nodes, nodes, "node")
