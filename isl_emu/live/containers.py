"""The containers of a run: one for every satellite that runs programs, with room for all that it is to do."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack

from isl_emu.network.net import IslNet
from isl_emu.nodes.containers import Container
from isl_emu.parts.live_run import Stage
from isl_emu.parts.needs import Role, roles


def start_containers(stage: Stage, net: IslNet, undo: ExitStack) -> dict[str, Container]:
    """A running container in each satellite that has a role, by its name; `undo` stops them.

    A container may use what the satellite's roles need together.
    """
    hosts = net.addresses
    slowdown, containers = stage.scenario.time.slowdown, {}
    for name, needs in _by_satellite(roles(stage.scenario)).items():
        node = net.get(name)
        cpus = sum(need.cpus for need in needs) / slowdown  # so that programs too are slower by that
        memory_byte = sum(need.memory_byte for need in needs)
        visible = tuple(dict.fromkeys(path for need in needs for path in need.visible))
        container = Container(name, node.netns_path, stage.run, cpus, memory_byte, hosts, visible)
        undo.callback(container.stop)
        container.start()
        node.container = containers[name] = container
    return containers


def _by_satellite(needs: Iterable[Role]) -> dict[str, list[Role]]:
    found: dict[str, list[Role]] = {}
    for need in needs:
        found.setdefault(need.satellite, []).append(need)
    return found
