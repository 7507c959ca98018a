"""All kinds of model servers, in the order in which a run starts them and the summary tells of them."""

from __future__ import annotations

from collections.abc import Mapping

from isl_emu.parts.serving.board_servers import ModelledServers
from isl_emu.parts.serving.external import OwnPrograms, RelayedServers
from isl_emu.parts.serving.real import RealServers, ThrottledServers
from isl_emu.parts.serving.server_kind import ServerKind
from isl_emu.scenario.compute import Compute

KINDS: Mapping[str, ServerKind] = {
    kind.key: kind for kind in (ModelledServers(), RealServers(), ThrottledServers(), OwnPrograms(), RelayedServers())
}


def kind_of(group: Compute) -> ServerKind:
    """The kind of a group's servers."""
    return KINDS[group.kind]
