"""Real servers: llama.cpp's own in the satellites' containers, at the pace of this machine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from isl_emu.parts.live_run import LiveRun
from isl_emu.parts.needs import Need
from isl_emu.parts.serving.model_file import check_memory, estimate_memory_byte, resolve_model
from isl_emu.parts.serving.server_kind import Facts, ServerGroup, ServerKind, Started
from isl_emu.parts.serving.servers import serve
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

    def facts(self, group: Compute) -> Facts:
        return {"model": resolve_model(group.model).name, "cpus": group.cpus}

    def start(self, live: LiveRun, groups: Sequence[ServerGroup]) -> Started:
        return Started([self._load(live, group) for group in groups])

    def _load(self, live: LiveRun, group: ServerGroup) -> Facts:
        """The servers of a group, healthy in the containers that have their model."""
        model = resolve_model(group.compute.model)
        if group.ready:
            containers = group.containers(live)
            with live.phase("servers", f"loading {model.name} on {len(containers)} satellites") as report:
                serving = serve(containers, model, group.compute.context_tokens, live.folder.journal, report)
                live.undo.enter_context(serving)
        return self.facts(group.compute)
