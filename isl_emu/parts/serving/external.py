"""External servers: by URL, as satellites pass what they are asked on to a model server outside, or by command, a
program of the user's in each satellite's container.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

from isl_emu.errors import MachineError, WorkloadError
from isl_emu.nodes.containers import Container
from isl_emu.parts.activity import Service
from isl_emu.parts.live_run import LiveRun
from isl_emu.parts.part import Need, files_named
from isl_emu.parts.serving.model_file import resolve_model
from isl_emu.parts.serving.relay_orders import Relayed, write_relayed
from isl_emu.parts.serving.residents import enter_servers
from isl_emu.parts.serving.server_kind import Facts, ServerGroup, ServerKind, Started
from isl_emu.parts.serving.servers import ModelServer, answers, read_ahead, serve_with, start_program
from isl_emu.runs.endpoints import MODEL_PORT
from isl_emu.scenario.compute import BUNDLED, HEALTH_PATH, Compute

OUTSIDE_TIMEOUT_S = 30.0


class RelayedServers(ServerKind):
    """What they compute, another machine does."""

    key = "external-by-url"

    def check(self, group: Compute, place: str) -> Sequence[Path]:
        if place == "guest":
            raise MachineError(
                f"compute.url: {group.url} is outside, but the guest kernel has no way out; use --machine host on a "
                "kernel with netem, or compute.command"
            )
        if group.key_variable and group.key_variable not in os.environ:
            raise WorkloadError(
                f"compute.key_variable: {group.key_variable} is not set, but it holds the key for {group.url}; export "
                "it"
            )
        return ()

    def facts(self, group: Compute) -> Facts:
        return {"model": group.url}

    def start(self, live: LiveRun, groups: Sequence[ServerGroup]) -> Started:
        journal = live.folder.journal
        relayed = []  # whose questions go to which URL
        for group in groups:
            compute = group.compute
            assert compute.url is not None, "a group of this kind has one"
            model = None if compute.model == BUNDLED else compute.model
            for node in map(live.net.get, group.satellites):
                where = (node.netns_path, node.address, MODEL_PORT)
                relayed.append(Relayed(*where, compute.url, model, compute.key_variable))
        write_relayed(relayed, journal)
        words = ["isl_emu.parts.serving.relay", "--journal", str(journal)]
        with live.phase("servers", f"relaying {len(relayed)} satellites to servers outside"):
            service = Service("relay", words, journal, live.undo)
        for group in groups:
            # asked from one of the satellites that use it
            node, page = live.net.get(group.satellites[0]), group.compute.health or HEALTH_PATH
            if not answers(node.netns_path, node.address, page, OUTSIDE_TIMEOUT_S):
                raise WorkloadError(
                    f"compute.url: {group.compute.url} does not answer {page} with status 200, but it must before the "
                    "run begins; start it, or name another page with compute.health"
                )
        return Started([self.facts(group.compute) for group in groups], [service])


class OwnPrograms(ServerKind):
    """A program may take its whole share of memory: nothing is known of it."""

    key = "external-by-command"

    def needs(self, group: Compute, satellites: Sequence[str]) -> Iterable[Need]:
        files = (*_models(group), *files_named(_words(group)))
        return (Need(name, group.cpus, group.memory_byte, group.memory_byte, files) for name in satellites)

    def check(self, group: Compute, place: str) -> Sequence[Path]:
        program = _words(group)[0]
        if shutil.which(program) is None:
            raise WorkloadError(
                f"compute.command: {program!r} cannot be run, but it is to serve; install it, or give its whole path"
            )
        return _models(group)

    def facts(self, group: Compute) -> Facts:
        return {"model": _words(group)[0], "cpus": group.cpus}

    def start(self, live: LiveRun, groups: Sequence[ServerGroup]) -> Started:
        for group in groups:
            words, models, containers = _words(group.compute), _models(group.compute), group.containers(live)
            for model in models:
                read_ahead(model)
            begin = partial(_start_program, words, next(iter(models), None), live.folder.journal)
            with live.phase("servers", f"starting {words[0]} on {len(containers)} satellites") as report:
                serving = serve_with(containers, begin, report, group.compute.health or HEALTH_PATH)
                enter_servers(live, live.undo.enter_context(serving))
        return Started([self.facts(group.compute) for group in groups])


def _words(group: Compute) -> list[str]:
    assert group.command is not None, "a group of this kind has one"
    return shlex.split(group.command)


def _models(group: Compute) -> tuple[Path, ...]:
    """The file of weights that a group's program loads, if it loads one."""
    return (resolve_model(group.model),) if group.loads_file else ()


def _start_program(words: Sequence[str], model: Path | None, journal: Path, container: Container) -> ModelServer:
    known = {"host": container.address, "port": MODEL_PORT, "model": model, "satellite": container.name}
    return start_program(container, [word.format(**known) for word in words], journal)
