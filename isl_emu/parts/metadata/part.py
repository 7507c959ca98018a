"""Metadata: nodes are told where they are, whom they see and what comes next."""

from __future__ import annotations

from collections.abc import Iterable

from isl_emu.network import messages
from isl_emu.nodes.nodespaces import ipv6_available
from isl_emu.parts.activity import Activity, RunProcess
from isl_emu.parts.live_run import LiveRun
from isl_emu.parts.part import Part, Source
from isl_emu.runs.endpoints import METADATA_ADDRESSES
from isl_emu.scenario.model import Scenario

PROCESS_BYTE = 160 << 20  # an allowance: Python, numpy and Skyfield, beside the plan


class MetadataPart(Part):
    key = "metadata"

    def own_byte(self, scenario: Scenario) -> int:
        return PROCESS_BYTE if scenario.metadata else 0

    def one_guest(self, source: Source) -> Iterable[str]:
        return ()

    def start(self, live: LiveRun) -> Iterable[Activity]:
        informed = set(filter(live.is_here, live.scenario.informed_nodes))
        if not informed:
            return
        addresses = METADATA_ADDRESSES if ipv6_available() else METADATA_ADDRESSES[:1]
        for space in live.net.backend.spaces:
            if space.node in informed:
                space.netlink.demand(map(messages.loopback_address, addresses), f"metadata of {space.node}")
        words = ["isl_emu.parts.metadata.server", "--run", live.net.run_directory.run_id]
        words += ["--part", str(live.folder.part)]
        yield RunProcess("metadata", words, live.folder.journal)
