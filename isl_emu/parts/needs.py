"""What programs run on which satellites in a run, and what each needs: containers and a guest are sized by it.

A satellite may have several roles, such as serving a model and receiving one.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from isl_emu.parts.serving.model_file import MIB, estimate_memory_byte, resolve_model
from isl_emu.parts.split.shares import layer_count, share_byte, shares
from isl_emu.scenario.compute import LOADING, Compute
from isl_emu.scenario.matching import matching
from isl_emu.scenario.model import Scenario
from isl_emu.scenario.training_groups import training_satellites

TORCH_RANK_BYTE = 320_000_000  # PyTorch with a small model; measured 263 MB


@dataclass(frozen=True)
class Role:
    """What one of a satellite's programs needs.

    Args:
        cpus: share of one core, at the scenario's own pace.
        memory_byte: the most that it may take.
        expected_byte: the most that it is expected to take, without the files in `visible`; a guest has room for that.
        visible: files and folders that it reads; in memory once for all.
    """

    satellite: str
    cpus: float
    memory_byte: int
    expected_byte: int
    visible: tuple[Path, ...] = ()


RECEIVER_BYTE = 128 * MIB  # the most; with the buffers of many connections
RECEIVER_EXPECTED_BYTE = 48 * MIB  # measured: 40 MB, Python and aiohttp mostly


def roles(scenario: Scenario) -> Iterator[Role]:
    """Everything that programs in containers do in a run.

    Raises:
        WorkloadError: a file that one of them needs cannot be used.
    """
    yield from _serving_roles(scenario)
    yield from _split_roles(scenario)
    yield from _training_roles(scenario)
    yield from _uplink_roles(scenario)


def _serving_roles(scenario: Scenario) -> Iterator[Role]:
    for group in scenario.compute:
        if group.server in LOADING or group.command:
            model = (resolve_model(group.model),) if group.loads_file else ()
            files = (*model, *_files_named(group.command or ""))
            for name in matching(group.satellites, scenario.satellite_names):
                yield Role(name, group.cpus, group.memory_byte, _expected_byte(group, files), files)


def _files_named(command: str) -> Iterator[Path]:
    """The files that a command names by their whole paths."""
    return (path for word in shlex.split(command) if (path := Path(word)).is_absolute() and path.is_file())


def _expected_byte(group: Compute, files: tuple[Path, ...]) -> int:
    """What one of a group's servers is expected to take; of a user's program nothing is known."""
    if group.command:
        return group.memory_byte
    return min(group.memory_byte, 2 * estimate_memory_byte(files[0], group.context_tokens))


def _split_roles(scenario: Scenario) -> Iterator[Role]:
    for split in scenario.split:
        model, members = resolve_model(split.model), split.members(scenario.satellite_names)
        parts = shares(layer_count(model), len(members), split.layers)
        for name, part in zip(members, parts, strict=True):
            expected_byte = min(split.memory_byte, share_byte(split, model, part, head=name == members[0]))
            yield Role(name, split.cpus, split.memory_byte, expected_byte, (model,))


def _uplink_roles(scenario: Scenario) -> Iterator[Role]:
    """Receiving takes no CPU time beside what the satellite has for serving, which comes later."""
    for name in scenario.uplinked_satellites:
        model = resolve_model(scenario.compute_of(name).model)
        yield Role(name, 0.0, RECEIVER_BYTE, RECEIVER_EXPECTED_BYTE, (model,))


def _training_roles(scenario: Scenario) -> Iterator[Role]:
    for job in scenario.training:
        if job.real:
            expected_byte = min(job.real.memory_byte, TORCH_RANK_BYTE)
            for name in training_satellites(scenario, job):
                yield Role(name, job.real.cpus, job.real.memory_byte, expected_byte)
