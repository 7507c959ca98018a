"""The model servers of a run, healthy before instant 0; which satellites serve; and where traffic finds the nodes."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack

from isl_emu.live.stage import Stage
from isl_emu.network.containers import Container
from isl_emu.network.net import IslNet
from isl_emu.results.journal import Journal
from isl_emu.results.provenance import write_json
from isl_emu.scenario.compute import LOADING, Compute
from isl_emu.scenario.matching import matching
from isl_emu.scenario.model import Scenario
from isl_emu.workload.model_file import resolve_model
from isl_emu.workload.model_server import MODEL_PORT
from isl_emu.workload.servers import serve


def serve_models(stage: Stage, containers: Mapping[str, Container], undo: ExitStack) -> None:
    """A model server in each satellite that has its model from the start, all healthy and written down as serving."""
    for group in stage.scenario.compute:
        names = _with_model(stage.scenario, group)
        if group.server in LOADING and names:
            _load_models(stage, group, [containers[name] for name in names], undo)
        write_serving(stage, names, t_ns=0)


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
