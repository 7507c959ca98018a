"""The model servers of a run, ready before instant 0, and which satellites serve."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from isl_emu.parts.activity import Activity
from isl_emu.parts.live_run import LiveRun
from isl_emu.parts.serving.board_servers import start_board_servers
from isl_emu.parts.serving.kinds import KINDS, kind_of
from isl_emu.parts.serving.modelled_specification import Specification
from isl_emu.parts.serving.residents import enter_fronts
from isl_emu.parts.serving.server_kind import Facts, ServerGroup
from isl_emu.parts.serving.who_serves import SERVING
from isl_emu.runs.journal import SERVERS_JOURNAL, Journal
from isl_emu.scenario.matching import matching
from isl_emu.scenario.model import Scenario


def serve_models(live: LiveRun) -> Sequence[Activity]:
    """A model server in each satellite that has its model from the start, all ready and written down as serving.

    Returns:
        The processes that serve and must be watched; what is in containers is not among them.
    """
    groups, facts, activities = server_groups(live.scenario), dict[int, Facts](), list[Activity]()
    specs: list[Specification] = []
    for kind in KINDS.values():
        own = [number for number, group in groups.items() if kind_of(group.compute) is kind]
        if own:
            started = kind.start(live, [_those_here(live, groups[number]) for number in own])
            facts |= dict(zip(own, started.facts, strict=True))
            activities += started.activities
            specs += started.specifications
    if specs:
        service = start_board_servers(live, specs)
        enter_fronts(live, service.pid)
        activities.append(service)
    with Journal(live.folder.journal / f"{SERVERS_JOURNAL}.jsonl") as servers:
        for number, group in groups.items():
            compute, size = group.compute, len(group.satellites)
            known = {"group": number, "server": compute.server, "satellites": size, "board": compute.board}
            servers.append({**known, **facts[number]})
    for group in groups.values():
        write_serving(live, group.ready, t_ns=0)
    return activities


def _those_here(live: LiveRun, group: ServerGroup) -> ServerGroup:
    satellites, ready = (tuple(filter(live.is_here, names)) for names in (group.satellites, group.ready))
    return ServerGroup(group.compute, satellites, ready)


def server_groups(scenario: Scenario) -> Mapping[int, ServerGroup]:
    """The groups of satellites that run servers, by their number in the scenario."""
    uplinked, names, found = set(scenario.uplinked_satellites), scenario.satellite_names, {}
    for number, compute in enumerate(scenario.compute):
        satellites = matching(compute.satellites, names)
        ready = tuple(name for name in satellites if name not in uplinked)
        found[number] = ServerGroup(compute, satellites, ready)
    return found


def write_serving(live: LiveRun, satellites: Iterable[str], t_ns: int) -> None:
    """Write down that satellites serve from `t_ns` of the run on; whoever asks questions reads it as it grows."""
    with Journal(live.folder.journal / SERVING) as journal:
        for name in satellites:
            journal.append({"satellite": name, "t_ns": t_ns})
