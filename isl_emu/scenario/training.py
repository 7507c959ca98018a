"""Training: satellites that train one model together, over the lasers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from pydantic import Field, model_validator

from isl_emu.scenario.boards import board_named
from isl_emu.scenario.compute import BoardName
from isl_emu.scenario.constellation import Constellation
from isl_emu.scenario.matching import Satellites, listed, unmatched
from isl_emu.scenario.quantities import Duration, NodeName, Record, Size
from isl_emu.units import NS_PER_S

HALF_PRECISION_BYTE = 2  # bfloat16, in which gradients of large models are exchanged
FLOP_PER_PARAMETER_AND_TOKEN = 6  # forward and backward; Source: Kaplan et al. 2020, section 2.1


class StepTime(Record):
    """How long one satellite computes for one step: `compute_time`, or as long as its work takes a `board`."""

    compute_time_ns: Duration | None = Field(alias="compute_time", default=None)
    board: BoardName | None = None
    utilisation: float = Field(gt=0.0, le=1.0, default=0.4)  # PaLM reached 0.46; Source: Chowdhery et al. 2022, table 3

    @model_validator(mode="after")
    def _one_time(self) -> StepTime:
        if self.compute_time_ns is not None and self.board is not None:
            raise ValueError("has compute_time and board, but only one says how long a step computes; remove one")
        return self

    def step_ns(self, parameters: int | None, tokens: int | None) -> int:
        """The time of a step that trains `parameters` on `tokens`."""
        if self.compute_time_ns is not None:
            stated_ns: int = self.compute_time_ns
            return stated_ns
        assert parameters is not None and tokens is not None and self.board is not None, "the scenario was checked"
        flop = FLOP_PER_PARAMETER_AND_TOKEN * parameters * tokens
        return round(flop * NS_PER_S / (self.utilisation * board_named(self.board).fp16_flop_s))


class Modelled(StepTime):
    """A training step that is not computed: it lasts a stated time, and exchanges bytes of the right number.

    `gradient`: what all satellites sum in a synchronisation; by default two bytes a parameter. `compute_time`: of one
    step on one satellite; by default 6 x parameters x tokens / (utilisation x the board's half-precision FLOPS).
    `tokens`: that one satellite trains on in one step.
    """

    gradient_byte: Size | None = Field(alias="gradient", default=None)
    parameters: int | None = Field(ge=1, le=10**15, default=None)
    tokens: int | None = Field(ge=1, le=10**12, default=None)

    @model_validator(mode="after")
    def _enough(self) -> Modelled:
        if self.gradient_byte is None and self.parameters is None:
            raise ValueError("has neither gradient nor parameters, but something must be exchanged; add one")
        if self.compute_time_ns is None and None in (self.board, self.parameters, self.tokens):
            raise ValueError("has no compute_time, but then it needs board, parameters and tokens; add them")
        return self

    @property
    def exchanged_byte(self) -> int:
        """Size of what is summed."""
        return self.gradient_byte or HALF_PRECISION_BYTE * int(self.parameters or 0)


class Real(StepTime):
    """A small transformer that learns to write, character by character, with PyTorch in the satellites' containers.

    In exact time, where computing takes none, a step takes `compute_time`, or as long as its work takes a `board`.
    `cpus`: share of one core, `memory`: of each satellite's container. `batch`: sequences of `context` characters that
    one satellite trains on in one step.
    """

    cpus: float = Field(gt=0.0, le=64.0, default=0.2)
    memory_byte: Size = Field(alias="memory", default=512 * 1024 * 1024)
    layers: int = Field(ge=1, le=48, default=2)
    width: int = Field(ge=8, le=4096, default=64)
    heads: int = Field(ge=1, le=4096, default=4)
    context: int = Field(ge=8, le=4096, default=48)
    batch: int = Field(ge=1, le=1_000_000, default=8)
    learning_rate: float = Field(gt=0.0, le=1e6, default=3e-3)

    @model_validator(mode="after")
    def _divides(self) -> Real:
        if self.width % self.heads:
            sizes = f"width {self.width} and {self.heads} heads"
            raise ValueError(f"has {sizes}, but width is a multiple of heads; change one")
        return self


class Training(Record):
    """One model that is trained by several satellites, each on its own data.

    `method`: "data-parallel" sums the gradients in every step; "diloco" lets each satellite take `inner_steps` by
    itself and then sums how far each has moved (Douillard et al. 2023). `collective`: how sums are formed. `ring`: who
    is beside whom. `reorder`: when that is chosen. `on_loss`: whether the others go on without a satellite that is
    lost, after nothing moved for `timeout`; with `rejoin` they take it back when it can be reached again.
    """

    name: NodeName = "training"
    satellites: Satellites = "all"
    method: Literal["data-parallel", "diloco"] = "data-parallel"
    inner_steps: int = Field(ge=1, le=10**9, default=20)
    outer_learning_rate: float = Field(gt=0.0, le=1e6, default=0.7)  # Source: Douillard et al. 2023, section 3.1
    outer_momentum: float = Field(ge=0.0, lt=1.0, default=0.9)  # Source: the same
    steps: int | None = Field(ge=1, le=10**9, default=None)
    collective: Literal["ring", "tree", "hierarchical"] = "ring"
    ring: Literal["least-total", "least-longest", "as-listed"] = "least-total"
    reorder: Literal["at-start", "each-step"] = "at-start"
    on_loss: Literal["heal", "stop"] = "heal"
    timeout_ns: Duration = Field(alias="timeout", default=5_000_000_000)
    rejoin: bool = True
    modelled: Modelled | None = None
    real: Real | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Training:
        if (self.modelled is None) == (self.real is None):
            raise ValueError("has both or neither of modelled and real, but a step is computed in one way; give one")
        if self.real and self.collective != "ring":
            raise ValueError(f"has collective {self.collective!r}, but gloo sums real gradients in a ring; remove it")
        return self

    @property
    def board(self) -> str | None:
        """The board on which its steps are computed, if one says how long they take."""
        step = self.modelled or self.real
        return step.board if step else None

    @property
    def local_steps(self) -> int:
        """Steps that a satellite takes from one synchronisation to the next."""
        return self.inner_steps if self.method == "diloco" else 1


def training_satellites(constellation: Constellation, job: Training) -> tuple[str, ...]:
    """The satellites of a job as they are listed; those of one pattern in node order."""
    return listed(job.satellites, constellation.satellite_names)


def trainers(constellation: Constellation, jobs: Sequence[Training], modelled_only: bool) -> tuple[str, ...]:
    """The satellites that train in some of the jobs, or in some whose steps are not computed."""
    meant = [job for job in jobs if job.modelled or not modelled_only]
    return tuple(dict.fromkeys(name for job in meant for name in training_satellites(constellation, job)))


def planes_of(constellation: Constellation) -> dict[str, tuple[str, int]]:
    """The plane, as (shell, number), of every satellite that belongs to a pattern."""
    return {
        name: (shell.name, index // shell.walker.slots)
        for shell, names in constellation.satellites_by_shell
        if shell.walker
        for index, name in enumerate(names)
    }


def training_contradictions(constellation: Constellation, jobs: Sequence[Training]) -> Iterator[str]:
    """One sentence for each training job that does not fit the constellation, or another one."""
    seen: dict[str, str] = {}
    planes = planes_of(constellation) if jobs else {}
    for index, job in enumerate(jobs):
        where = f"training[{index}]"
        if problems := list(unmatched(f"{where}.satellites", job.satellites, constellation.satellite_names)):
            yield from problems
            continue
        satellites = training_satellites(constellation, job)
        if len(satellites) < 2:
            yield f"{where}.satellites names {len(satellites)}, but training together needs two; name more"
        yield from _collective_problems(where, job, satellites, planes)
        if job.name in seen.values():
            yield f"{where}.name is {job.name!r}, but an earlier training has that name; rename one"
        for satellite in satellites:
            if satellite in seen:
                yield f"{where}.satellites has {satellite!r}, but {seen[satellite]} trains on it; leave it to one"
        seen.update(dict.fromkeys(satellites, job.name))


def _collective_problems(
    where: str, job: Training, satellites: tuple[str, ...], planes: dict[str, tuple[str, int]]
) -> Iterator[str]:
    if job.collective != "hierarchical":
        return
    strangers = [name for name in satellites if name not in planes]
    if strangers:
        yield f"{where}.collective is hierarchical, but {strangers[0]!r} belongs to no plane; choose ring or tree"
        return
    sizes: dict[tuple[str, int], int] = {}
    for name in satellites:
        sizes[planes[name]] = sizes.get(planes[name], 0) + 1
    if len(set(sizes.values())) > 1:
        found = f"{min(sizes.values())} to {max(sizes.values())} satellites of a plane"
        yield f"{where}.collective is hierarchical with {found}, but it needs equally many; name others, or choose ring"
