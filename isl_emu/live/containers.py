"""The containers of a run: one for every satellite that runs programs, with room for all that it is to do."""

from __future__ import annotations

from contextlib import ExitStack

from isl_emu.live.room import all_needs
from isl_emu.network.net import IslNet
from isl_emu.nodes.containers import Container
from isl_emu.parts.needs import Need
from isl_emu.runs.directory import RunDirectory
from isl_emu.scenario.model import Scenario


def start_containers(scenario: Scenario, net: IslNet, run: RunDirectory, undo: ExitStack) -> dict[str, Container]:
    """A running container in each satellite that runs programs, by its name; `undo` stops them.

    A container may use what the satellite's programs need together.
    """
    needs_by_satellite: dict[str, list[Need]] = {}
    for need in all_needs(scenario):
        needs_by_satellite.setdefault(need.satellite, []).append(need)
    hosts, containers = net.addresses, {}
    for name, needs in needs_by_satellite.items():
        node = net.get(name)
        cpus = sum(need.cpus for need in needs) / scenario.time.slowdown  # so that programs too are slower by that
        memory_byte = sum(need.memory_byte for need in needs)
        visible = tuple(dict.fromkeys(path for need in needs for path in need.visible))
        container = Container(name, node.netns_path, run, cpus, memory_byte, hosts, visible)
        undo.callback(container.stop)
        container.start()
        node.container = containers[name] = container
    return containers
