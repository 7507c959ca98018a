"""External servers by URL: satellites pass what they are asked on to a model server outside."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from isl_emu.errors import MachineError, WorkloadError
from isl_emu.parts.activity import Service
from isl_emu.parts.live_run import LiveRun
from isl_emu.parts.serving.relay_orders import Relayed, write_relayed
from isl_emu.parts.serving.server_kind import Facts, ServerGroup, ServerKind, Started
from isl_emu.parts.serving.servers import answers
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
        relayed = [one for group in groups for one in _relayed(live, group)]
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


def _relayed(live: LiveRun, group: ServerGroup) -> list[Relayed]:
    """Whose questions go to which URL."""
    compute = group.compute
    assert compute.url is not None, "a group of this kind has one"
    return [
        Relayed(
            netns=node.netns_path,
            address=node.address,
            port=MODEL_PORT,
            url=compute.url,
            model=None if compute.model == BUNDLED else compute.model,
            key_variable=compute.key_variable,
        )
        for node in map(live.net.get, group.satellites)
    ]
