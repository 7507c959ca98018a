"""What nodes are like inside: limits for all that runs there, and settings of their network that are theirs alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

from isl_emu.errors import MachineError
from isl_emu.nodes.images import unpacked_byte
from isl_emu.nodes.namespaces import enter_network, in_own_thread
from isl_emu.nodes.nodespaces import SYSCTLS
from isl_emu.parts.activity import Activity
from isl_emu.parts.live_run import LiveRun
from isl_emu.parts.part import Need, Part, Preparation, Source
from isl_emu.scenario.model import Scenario
from isl_emu.scenario.nodes import CONGESTION_CONTROL, settings_by_node

AVAILABLE = "net.ipv4.tcp_available_congestion_control"
SPARE_BYTE = 8 << 20  # what the container of a node takes in which nothing runs yet


class NodesPart(Part):
    key = "nodes"

    def needs(self, scenario: Scenario) -> Iterable[Need]:
        for name, settings in settings_by_node(scenario.node, scenario.node_names).items():
            if settings.limited:
                memory_byte, image = settings.memory_byte or 0, settings.image and Path(settings.image).absolute()
                visible = (image,) if image else ()
                yield Need(
                    name, settings.cpus or 0.0, memory_byte, SPARE_BYTE, visible,
                    pids=settings.pids, image=image or None, total=True,
                )  # fmt: skip

    def own_byte(self, scenario: Scenario) -> int:
        """Images are unpacked into memory, each once."""
        return sum(unpacked_byte(image) for image in _images(scenario))

    def checks(self, scenario: Scenario) -> Iterable[Callable[[], object]]:
        yield from (partial(unpacked_byte, image) for image in _images(scenario))

    def prepare(self, source: Source, place: str) -> Preparation:
        for image in _images(source.scenario):
            unpacked_byte(image)  # so that an error comes now
        return Preparation()

    def one_guest(self, source: Source) -> Iterable[str]:
        return ()

    def start(self, live: LiveRun) -> Iterable[Activity]:
        """Set each node's settings before anything runs there; what TCP does in which node is written down."""
        scenario, found = live.scenario, live.phase.execution.congestion_control
        found["default"] = SYSCTLS["ipv4/tcp_congestion_control"]
        for name, settings in settings_by_node(scenario.node, scenario.node_names).items():
            wanted = dict(settings.sysctls)
            if settings.congestion_control:
                wanted[CONGESTION_CONTROL] = found[name] = settings.congestion_control
            if wanted:
                in_own_thread(set_sysctls, name, live.net.get(name).netns_path, wanted)
        return ()


def _images(scenario: Scenario) -> set[Path]:
    return {Path(table.image).absolute() for table in scenario.node if table.image}


def set_sysctls(node: str, netns_path: str, wanted: Mapping[str, str]) -> None:
    """Set sysctls in a node's network, from a thread that it may keep, and read them back.

    Raises:
        MachineError: this kernel does not have one, or does not take its value.
    """
    enter_network(netns_path)
    for name, value in wanted.items():
        if name == CONGESTION_CONTROL and value not in (known := _place(AVAILABLE).read_text().split()):
            raise MachineError(
                f"node {node}: congestion_control is {value!r}, but this kernel has {', '.join(known)}; take one of "
                f"them, or load it first (modprobe tcp_{value})"
            )
        try:
            _place(name).write_text(value)
            taken = _place(name).read_text().split()
        except OSError as error:
            raise MachineError(
                f"node {node}: {name} is to be {value!r}, but this kernel refuses ({error.strerror}); leave it out"
            ) from None
        if taken != value.split():
            raise MachineError(
                f"node {node}: {name} is to be {value!r}, but this kernel takes {' '.join(taken)!r}; set that"
            )


def _place(name: str) -> Path:
    return Path("/proc/sys", name.replace(".", "/"))
