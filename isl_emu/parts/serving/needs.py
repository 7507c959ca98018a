"""What model servers in containers need."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

from isl_emu.parts.needs import Need
from isl_emu.parts.serving.model_file import estimate_memory_byte, resolve_model
from isl_emu.scenario.compute import LOADING, Compute
from isl_emu.scenario.matching import matching
from isl_emu.scenario.model import Scenario


def server_needs(scenario: Scenario) -> Iterator[Need]:
    """What each server in a container needs; nothing for those that are modelled or outside."""
    for group in scenario.compute:
        if group.server in LOADING or group.command:
            model = (resolve_model(group.model),) if group.loads_file else ()
            files = (*model, *_files_named(group.command or ""))
            for name in matching(group.satellites, scenario.satellite_names):
                yield Need(name, group.cpus, group.memory_byte, _expected_byte(group, files), files)


def _files_named(command: str) -> Iterator[Path]:
    """The files that a command names by their whole paths."""
    return (path for word in shlex.split(command) if (path := Path(word)).is_absolute() and path.is_file())


def _expected_byte(group: Compute, files: tuple[Path, ...]) -> int:
    """What one of a group's servers is expected to take; of a user's program nothing is known."""
    if group.command:
        return group.memory_byte
    return min(group.memory_byte, 2 * estimate_memory_byte(files[0], group.context_tokens))
