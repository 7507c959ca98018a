"""The model servers of a run, ready before instant 0, and which satellites serve."""

from __future__ import annotations

from isl_emu.errors import WorkloadError
from isl_emu.parts.activity import Activity, Service
from isl_emu.parts.live_run import LiveRun
from isl_emu.parts.serving.group_servers import start_group
from isl_emu.parts.serving.modelled_satellite import Specification, write_specifications
from isl_emu.parts.serving.relayed import Relayed, write_relayed
from isl_emu.parts.serving.servers import answers
from isl_emu.runs.journal import Journal
from isl_emu.runs.ports import MODEL_PORT
from isl_emu.scenario.compute import BUNDLED, HEALTH_PATH, Compute
from isl_emu.scenario.matching import matching
from isl_emu.scenario.model import Scenario

OUTSIDE_TIMEOUT_S = 30.0


def serve_models(live: LiveRun) -> list[Activity]:
    """A model server in each satellite that has its model from the start, all ready and written down as serving.

    Returns:
        The processes that serve and must be watched; what is in containers is not among them.
    """
    scenario, journal = live.scenario, live.folder.journal
    with Journal(journal / "servers.jsonl") as table:
        for number, group in enumerate(scenario.compute):
            names = matching(group.satellites, scenario.satellite_names)
            ready = [live.containers[name] for name in _with_model(scenario, group) if name in live.containers]
            kind = {"group": number, "server": group.server, "satellites": len(names), "board": group.board}
            table.append({**kind, **start_group(live, group, ready)})
    services: list[Activity] = []
    if specs := _modelled(live):
        write_specifications(specs, journal)
        words = ["isl_emu.parts.serving.modelled_server", "--journal", str(journal)]
        with live.phase("servers", f"modelling servers on {len(specs)} satellites"):
            services.append(Service("modelled-servers", words, journal, live.undo))
    if relayed := _relayed(live):
        write_relayed(relayed, journal)
        words = ["isl_emu.parts.serving.relay", "--journal", str(journal)]
        with live.phase("servers", f"relaying {len(relayed)} satellites to servers outside"):
            services.append(Service("relay", words, journal, live.undo))
    _check_outside(live)
    for group in scenario.compute:
        write_serving(live, _with_model(scenario, group), t_ns=0)
    return services


def _modelled(live: LiveRun) -> list[Specification]:
    """What each modelled server is, and where."""
    scenario, specs = live.scenario, []
    for group in scenario.compute:
        if group.server == "modelled":
            pace = group.roofline
            kind = (pace.board.name, pace.model.name, pace.bits, group.modelled_slots, group.context_tokens)
            nodes = map(live.net.get, matching(group.satellites, scenario.satellite_names))
            specs += [Specification(node.name, node.netns_path, node.address, MODEL_PORT, *kind) for node in nodes]
    return specs


def _relayed(live: LiveRun) -> list[Relayed]:
    """Whose questions go to which URL."""
    relayed = []
    for group in live.scenario.compute:
        if group.url:
            model = None if group.model == BUNDLED else group.model
            for node in map(live.net.get, matching(group.satellites, live.scenario.satellite_names)):
                place = (node.netns_path, node.address, MODEL_PORT)
                relayed.append(Relayed(*place, group.url, model, group.key_variable))
    return relayed


def _check_outside(live: LiveRun) -> None:
    """Ask each server outside for its health, from one of the satellites that use it."""
    for group in live.scenario.compute:
        if group.url:
            node = live.net.get(matching(group.satellites, live.scenario.satellite_names)[0])
            path = group.health or HEALTH_PATH
            if not answers(node.netns_path, node.address, path, OUTSIDE_TIMEOUT_S):
                raise WorkloadError(
                    f"compute.url: {group.url} does not answer {path} with status 200, but it must before the run "
                    "begins; start it, or name another page with compute.health"
                )


def _with_model(scenario: Scenario, group: Compute) -> tuple[str, ...]:
    """The satellites of a group that need not get their model during the run."""
    uplinked = set(scenario.uplinked_satellites)
    return tuple(name for name in matching(group.satellites, scenario.satellite_names) if name not in uplinked)


def write_serving(live: LiveRun, satellites: tuple[str, ...], t_ns: int) -> None:
    """Write down that satellites serve from `t_ns` on; whoever asks questions reads it as it grows."""
    with Journal(live.folder.journal / "serving.jsonl") as journal:
        for name in satellites:
            journal.append({"satellite": name, "t_ns": t_ns})
