"""What can be known of a run's servers before anything is built: files, programs, keys, and ways to them."""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path

from isl_emu.errors import MachineError, WorkloadError
from isl_emu.parts.serving.model_file import check_memory, resolve_model
from isl_emu.parts.serving.model_shape import file_roofline
from isl_emu.scenario.boards import board_named
from isl_emu.scenario.compute import LOADING, Compute
from isl_emu.scenario.model import Scenario


def check_servers(scenario: Scenario, place: str) -> list[Path]:
    """The files of weights that servers load, once all servers are known to be possible.

    Args:
        place: where the network is built, "host" or "guest".

    Raises:
        WorkloadError: a file is no model or does not fit into a server's memory; a program or a key is missing.
        MachineError: a server outside cannot be reached from there.
    """
    for group in scenario.compute:
        if group.command:
            _check_program(group.command)
        if group.url:
            _check_outside(group, place)
    return [_checked_file(group) for group in scenario.compute if group.loads_file]


def _checked_file(group: Compute) -> Path:
    model = resolve_model(group.model)
    if group.server in LOADING:
        check_memory(model, group.context_tokens, group.memory_byte)
    if group.server == "throttled" and group.decode_tokens_s is None:
        file_roofline(model, board_named(group.board or ""))
    return model


def _check_program(command: str) -> None:
    program = shlex.split(command)[0]
    if shutil.which(program) is None:
        raise WorkloadError(
            f"compute.command: {program!r} cannot be run, but it is to serve; install it, or give its whole path"
        )


def _check_outside(group: Compute, place: str) -> None:
    if place == "guest":
        raise MachineError(
            f"compute.url: {group.url} is outside, but the guest kernel has no way out; use --machine host on a kernel "
            "with netem, or compute.command"
        )
    if group.key_variable and group.key_variable not in os.environ:
        raise WorkloadError(
            f"compute.key_variable: {group.key_variable} is not set, but it holds the key for {group.url}; export it"
        )
