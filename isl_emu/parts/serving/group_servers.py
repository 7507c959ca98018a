"""The servers of a group of satellites that run in its containers, and what the results say of a group's servers."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from isl_emu.errors import WorkloadError
from isl_emu.nodes.containers import Container
from isl_emu.parts.live_run import LiveRun
from isl_emu.parts.serving.model_file import resolve_model
from isl_emu.parts.serving.model_shape import file_roofline
from isl_emu.parts.serving.servers import ModelServer, read_ahead, serve, serve_with, start_program
from isl_emu.parts.serving.throttling import throttle
from isl_emu.runs.ports import MODEL_PORT
from isl_emu.scenario.boards import board_named
from isl_emu.scenario.compute import HEALTH_PATH, LOADING, Compute
from isl_emu.units import NS_PER_S

Facts = dict[str, Any]  # of a group, for the table `servers`


def start_group(live: LiveRun, group: Compute, containers: Sequence[Container]) -> Facts:
    """The servers of a group, healthy in its containers; nothing where they are not in containers.

    Raises:
        WorkloadError: one does not come up, or a throttled one is too slow even with its whole share.
    """
    if not containers or not (group.server in LOADING or group.command):
        return {**group_facts(group), "cpus": None}
    if group.command:
        _start_programs(live, group, containers)
        return group_facts(group)
    _load_models(live, group, containers)
    return _throttle(live, group, containers) if group.server == "throttled" else group_facts(group)


def group_facts(group: Compute) -> Facts:
    """What is known of a group's servers without starting them."""
    if group.server == "modelled":
        pace = NS_PER_S / group.roofline.step_ns(0)
        return {"model": group.roofline.model.name, "decode_tokens_s": pace}
    if group.server == "external":
        return {"model": group.url or shlex.split(group.command or "")[0], "cpus": group.cpus}
    return {"model": resolve_model(group.model).name, "cpus": group.cpus}


def wanted_tokens_s(group: Compute) -> float:
    """The decoding pace that a throttled group is to have."""
    if group.decode_tokens_s is not None:
        return group.decode_tokens_s
    return NS_PER_S / file_roofline(resolve_model(group.model), board_named(group.board or "")).step_ns(0)


def _load_models(live: LiveRun, group: Compute, containers: Sequence[Container]) -> None:
    model = resolve_model(group.model)
    with live.phase("servers", f"loading {model.name} on {len(containers)} satellites") as report:
        live.undo.enter_context(serve(containers, model, group.context_tokens, live.folder.journal, report))


def _start_programs(live: LiveRun, group: Compute, containers: Sequence[Container]) -> None:
    """A program of the user's in each container."""
    model = resolve_model(group.model) if group.loads_file else None
    if model:
        read_ahead(model)
    start = partial(_start_program, group, model, live.folder.journal)
    with live.phase("servers", f"starting {shlex.split(group.command)[0]} on {len(containers)} satellites") as report:
        live.undo.enter_context(serve_with(containers, start, report, group.health or HEALTH_PATH))


def _start_program(group: Compute, model: Path | None, journal: Path, container: Container) -> ModelServer:
    known = {"host": container.address, "port": MODEL_PORT, "model": model, "satellite": container.name}
    return start_program(container, [word.format(**known) for word in shlex.split(group.command)], journal)


def _throttle(live: LiveRun, group: Compute, containers: Sequence[Container]) -> Facts:
    """Measure which share of a core has the wanted pace on one satellite, and limit all of the group to it."""
    slowdown, wanted = live.scenario.time.slowdown, wanted_tokens_s(group)
    with live.phase("throttling", f"throttling {len(containers)} satellites to {wanted:.3g} tokens/s"):
        found = throttle(containers[0], wanted / slowdown, group.cpus)
    native = found.native_tokens_s * slowdown
    if found.got_tokens_s is None:
        raise WorkloadError(_too_slow(group, wanted, native))
    for container in containers:
        container.cpus += found.cpus - group.cpus / slowdown  # besides what its other roles have
        container.set_cpus(container.cpus)
    measured = {"native_tokens_s": native, "got_tokens_s": found.got_tokens_s * slowdown}
    return {**group_facts(group), "cpus": found.cpus * slowdown, "decode_tokens_s": wanted, **measured}


def _too_slow(group: Compute, wanted: float, native: float) -> str:
    whose = f"as {group.board} does" if group.decode_tokens_s is None else "by decode_tokens_s"
    return (
        f"compute.server: is throttled to {wanted:.3g} tokens/s, {whose}, but with {group.cpus:g} of a core this "
        f"machine reaches {native:.3g} tokens/s with {resolve_model(group.model).name}; use a modelled server, a "
        "slower board, or slow motion"
    )
