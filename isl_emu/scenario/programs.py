"""Traffic of a user's own: programs that run in nodes, and workloads written in Python."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from isl_emu.scenario.quantities import Delay, Duration, NodeName, Record, UserFunction


class Program(Record):
    """A program that is started in a node while the sky moves, as its user would: iperf3, curl, a server.

    It is ended with the run, or after `duration_ns`; its exit status is recorded, and no failure of the run. In a
    satellite that computes it runs inside the container.
    """

    name: NodeName
    node: NodeName
    command: tuple[str, ...] = Field(min_length=1)
    at_ns: Delay = Field(alias="at", default=0)
    duration_ns: Duration | None = Field(alias="duration", default=None)


class UserWorkload(Record):
    """A workload in Python: a function that is called when the run begins, in a process of its own.

    It gets a `isl_emu.parts.programs.user_workload.WorkloadContext`, with `options` as they stand in the scenario.
    """

    name: NodeName
    function: UserFunction
    nodes: tuple[NodeName, ...] = Field(min_length=1)
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _name_of_a_table(self) -> UserWorkload:
        if self.name in RESERVED:
            raise ValueError(f"name is {self.name!r}, but that is a table of isl-emu's own; choose another")
        return self


RESERVED = frozenset({"requests", "probes", "instants", "changes", "load", "plan", "serving"})
