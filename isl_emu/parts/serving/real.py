"""Real servers: llama.cpp's own in the satellites' containers, at the pace of this machine.

In exact time, where computing takes none, their words are real and their time is that of a board: see `real_words`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from isl_emu.errors import WorkloadError
from isl_emu.parts.live_run import LiveRun
from isl_emu.parts.part import Need
from isl_emu.parts.serving.board_pace import wanted_tokens_s
from isl_emu.parts.serving.board_servers import pace_facts, specifications
from isl_emu.parts.serving.model_file import check_memory, estimate_memory_byte, resolve_model
from isl_emu.parts.serving.server_kind import Facts, ServerGroup, ServerKind, Started
from isl_emu.parts.serving.servers import serve
from isl_emu.runs.endpoints import WORDS_PORT
from isl_emu.scenario.compute import Compute


class RealServers(ServerKind):
    """A server has one thread, so it uses one CPU at the most."""

    key = "real"

    def needs(self, group: Compute, satellites: Sequence[str]) -> Iterable[Need]:
        model = resolve_model(group.model)
        expected_byte = min(group.memory_byte, 2 * estimate_memory_byte(model, group.context_tokens))
        return (Need(name, group.cpus, group.memory_byte, expected_byte, (model,)) for name in satellites)

    def check(self, group: Compute, place: str) -> Sequence[Path]:
        model = resolve_model(group.model)
        check_memory(model, group.context_tokens, group.memory_byte)
        return [model]

    def real_time(self, group: Compute) -> str | None:
        if group.board is None and group.decode_tokens_s is None:
            return (
                f'compute.server is "{group.server}", whose answers would take no time to compute unless board says '
                "whose time they take; add board, and pace_model if it is that of another model"
            )
        try:
            wanted_tokens_s(group)
        except WorkloadError:
            return f"compute.model: {group.model} does not say whose pace it has on {group.board}; add pace_model"
        return None

    def facts(self, group: Compute) -> Facts:
        return {"model": resolve_model(group.model).name, "cpus": group.cpus}

    def start(self, live: LiveRun, groups: Sequence[ServerGroup]) -> Started:
        loaded = [self._load(live, group) for group in groups]
        if not live.exact:
            return Started([{**facts, **self._held(live, group)} for facts, group in zip(loaded, groups, strict=True)])
        specs = [spec for group in groups for spec in specifications(live, group, WORDS_PORT)]
        facts = [{**own, **pace_facts(group.compute)} for own, group in zip(loaded, groups, strict=True)]
        return Started(facts, specifications=specs)

    def _held(self, live: LiveRun, group: ServerGroup) -> Facts:
        """What is done in real time so that a loaded group has its pace: nothing, for it is its own."""
        return {}

    def _load(self, live: LiveRun, group: ServerGroup) -> Facts:
        """The servers of a group, healthy in the containers that have their model."""
        model = resolve_model(group.compute.model)
        if group.ready:
            containers = group.containers(live)
            with live.phase("servers", f"loading {model.name} on {len(containers)} satellites") as report:
                context_tokens, journal = group.compute.context_tokens, live.folder.journal
                serving = serve(containers, model, context_tokens, journal, report, live.exact)
                for server in live.undo.enter_context(serving):
                    live.watch.add(server.watched())
        return self.facts(group.compute)
