"""The satellites that compute: a container for each, and a model server in it; and where traffic finds the nodes."""

from __future__ import annotations

from contextlib import ExitStack

from isl_emu.live.stage import Stage
from isl_emu.network.containers import Container
from isl_emu.network.net import IslNet
from isl_emu.results.provenance import write_json
from isl_emu.workload.model_file import resolve_model
from isl_emu.workload.model_server import MODEL_PORT
from isl_emu.workload.servers import serve


def serve_models(stage: Stage, net: IslNet, undo: ExitStack) -> None:
    """A container with a model server in each computing satellite, all healthy."""
    compute, model = stage.scenario.compute, resolve_model(stage.scenario.compute.model)
    hosts = {node.name: node.address for node in net.hosts}
    satellites = stage.scenario.computing_satellites
    cpus = compute.cpus / stage.scenario.time.slowdown  # so that servers too are slower by that
    containers = []
    with stage.phase("servers", f"loading {model.name} on {len(satellites)} satellites") as report:
        for name in satellites:
            node = net.get(name)
            container = Container(name, node.netns_path, stage.run, cpus, compute.memory_byte, hosts, (model,))
            undo.callback(container.stop)
            container.start()
            node.container = container
            containers.append(container)
        undo.enter_context(serve(containers, model, compute.context_tokens, stage.folder.journal, report))


def write_endpoints(stage: Stage, net: IslNet) -> None:
    """Where client and prober find the nodes."""
    serving = set(stage.scenario.computing_satellites)
    endpoints = {
        node.name: {
            "netns": node.netns_path,
            "address": node.address,
            "port": MODEL_PORT if node.name in serving else None,
        }
        for node in net.hosts
    }
    write_json(stage.folder.journal / "endpoints.json", endpoints)
