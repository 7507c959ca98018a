"""The model servers of a run, healthy before instant 0; which satellites serve; and where traffic finds the nodes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from typing import Any

from isl_emu.live.services import Service, service
from isl_emu.live.stage import Stage
from isl_emu.network.containers import Container
from isl_emu.network.net import IslNet
from isl_emu.results.journal import Journal
from isl_emu.results.provenance import write_json
from isl_emu.scenario.compute import LOADING, Compute
from isl_emu.scenario.matching import matching
from isl_emu.scenario.model import Scenario
from isl_emu.units import NS_PER_S
from isl_emu.workload.model_file import resolve_model
from isl_emu.workload.model_server import MODEL_PORT
from isl_emu.workload.modelled_satellite import Specification, write_specifications
from isl_emu.workload.servers import serve


def serve_models(stage: Stage, net: IslNet, containers: Mapping[str, Container], undo: ExitStack) -> list[Service]:
    """A model server in each satellite that has its model from the start, all ready and written down as serving.

    Returns:
        The processes that serve and must be watched; what is in containers is not among them.
    """
    for group in stage.scenario.compute:
        names = _with_model(stage.scenario, group)
        if group.server in LOADING and names:
            _load_models(stage, group, [containers[name] for name in names], undo)
        write_serving(stage, names, t_ns=0)
    _write_groups(stage)
    return [undo.enter_context(service) for service in _services(stage, net)]


def _write_groups(stage: Stage) -> None:
    """What the servers of each group are."""
    with Journal(stage.folder.journal / "servers.jsonl") as journal:
        for number, group in enumerate(stage.scenario.compute):
            names = matching(group.satellites, stage.scenario.satellite_names)
            kind = {"group": number, "server": group.server, "satellites": len(names), "board": group.board}
            journal.append({**kind, **_pace(group)})


def _pace(group: Compute) -> dict[str, Any]:
    if group.server == "modelled":
        return {"model": group.roofline.model.name, "decode_tokens_s": NS_PER_S / group.roofline.step_ns(0)}
    return {"model": resolve_model(group.model).name, "cpus": group.cpus}


def _services(stage: Stage, net: IslNet) -> Iterator[AbstractContextManager[Service]]:
    journal = stage.folder.journal
    if specs := _modelled(stage, net):
        write_specifications(specs, journal)
        words = ["isl_emu.workload.modelled_server", "--journal", str(journal)]
        with stage.phase("servers", f"modelling servers on {len(specs)} satellites"):
            yield service("modelled-servers", words, journal)


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


def _with_model(scenario: Scenario, group: Compute) -> tuple[str, ...]:
    """The satellites of a group that need not get their model during the run."""
    uplinked = set(scenario.uplinked_satellites)
    return tuple(name for name in matching(group.satellites, scenario.satellite_names) if name not in uplinked)


def write_serving(stage: Stage, satellites: tuple[str, ...], t_ns: int) -> None:
    """Write down that satellites serve from `t_ns` on; whoever asks questions reads it as it grows."""
    with Journal(stage.folder.journal / "serving.jsonl") as journal:
        for name in satellites:
            journal.append({"satellite": name, "t_ns": t_ns})


def _load_models(stage: Stage, group: Compute, containers: list[Container], undo: ExitStack) -> None:
    model = resolve_model(group.model)
    with stage.phase("servers", f"loading {model.name} on {len(containers)} satellites") as report:
        undo.enter_context(serve(containers, model, group.context_tokens, stage.folder.journal, report))


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
