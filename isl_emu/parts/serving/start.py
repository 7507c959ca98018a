"""The model servers of a run, ready before instant 0; which satellites serve; and where traffic finds the nodes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack

from isl_emu.errors import WorkloadError
from isl_emu.network.net import IslNet
from isl_emu.nodes.containers import Container
from isl_emu.parts.live_run import Stage
from isl_emu.parts.serving.group_servers import start_group
from isl_emu.parts.serving.model_server import MODEL_PORT
from isl_emu.parts.serving.modelled_satellite import Specification, write_specifications
from isl_emu.parts.serving.relayed import Relayed, write_relayed
from isl_emu.parts.serving.servers import answers
from isl_emu.results.provenance import write_json
from isl_emu.runs.journal import Journal
from isl_emu.runs.process import Service, service
from isl_emu.scenario.compute import BUNDLED, HEALTH_PATH, Compute
from isl_emu.scenario.matching import matching
from isl_emu.scenario.model import Scenario

OUTSIDE_TIMEOUT_S = 30.0


def serve_models(stage: Stage, net: IslNet, containers: Mapping[str, Container], undo: ExitStack) -> list[Service]:
    """A model server in each satellite that has its model from the start, all ready and written down as serving.

    Returns:
        The processes that serve and must be watched; what is in containers is not among them.
    """
    scenario = stage.scenario
    with Journal(stage.folder.journal / "servers.jsonl") as journal:
        for number, group in enumerate(scenario.compute):
            names = matching(group.satellites, scenario.satellite_names)
            ready = [containers[name] for name in _with_model(scenario, group) if name in containers]
            kind = {"group": number, "server": group.server, "satellites": len(names), "board": group.board}
            journal.append({**kind, **start_group(stage, group, ready, undo)})
    services = [undo.enter_context(service) for service in _services(stage, net)]
    _check_outside(stage, net)
    for group in scenario.compute:
        write_serving(stage, _with_model(scenario, group), t_ns=0)
    return services


def _services(stage: Stage, net: IslNet) -> Iterator[AbstractContextManager[Service]]:
    journal = stage.folder.journal
    if specs := _modelled(stage, net):
        write_specifications(specs, journal)
        words = ["isl_emu.parts.serving.modelled_server", "--journal", str(journal)]
        with stage.phase("servers", f"modelling servers on {len(specs)} satellites"):
            yield service("modelled-servers", words, journal)
    if relayed := _relayed(stage, net):
        write_relayed(relayed, journal)
        with stage.phase("servers", f"relaying {len(relayed)} satellites to servers outside"):
            yield service("relay", ["isl_emu.parts.serving.relay", "--journal", str(journal)], journal)


def _modelled(stage: Stage, net: IslNet) -> list[Specification]:
    """What each modelled server is, and where."""
    scenario, specs = stage.scenario, []
    for group in scenario.compute:
        if group.server == "modelled":
            pace = group.roofline
            kind = (pace.board.name, pace.model.name, pace.bits, group.modelled_slots, group.context_tokens)
            nodes = map(net.get, matching(group.satellites, scenario.satellite_names))
            specs += [Specification(node.name, node.netns_path, node.address, MODEL_PORT, *kind) for node in nodes]
    return specs


def _relayed(stage: Stage, net: IslNet) -> list[Relayed]:
    """Whose questions go to which URL."""
    relayed = []
    for group in stage.scenario.compute:
        if group.url:
            model = None if group.model == BUNDLED else group.model
            for node in map(net.get, matching(group.satellites, stage.scenario.satellite_names)):
                place = (node.netns_path, node.address, MODEL_PORT)
                relayed.append(Relayed(*place, group.url, model, group.key_variable))
    return relayed


def _check_outside(stage: Stage, net: IslNet) -> None:
    """Ask each server outside for its health, from one of the satellites that use it."""
    for group in stage.scenario.compute:
        if group.url:
            node = net.get(matching(group.satellites, stage.scenario.satellite_names)[0])
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


def write_serving(stage: Stage, satellites: tuple[str, ...], t_ns: int) -> None:
    """Write down that satellites serve from `t_ns` on; whoever asks questions reads it as it grows."""
    with Journal(stage.folder.journal / "serving.jsonl") as journal:
        for name in satellites:
            journal.append({"satellite": name, "t_ns": t_ns})


def write_endpoints(stage: Stage, net: IslNet) -> None:
    """Where client and prober find the nodes."""
    serving = set(stage.scenario.serving_satellites)
    endpoints = {
        node.name: {
            "netns": node.netns_path,
            "address": node.address,
            "port": MODEL_PORT if node.name in serving else None,
        }
        for node in net.hosts
    }
    write_json(stage.folder.journal / "endpoints.json", endpoints)
