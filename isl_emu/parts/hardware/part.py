"""Hardware: interfaces of the machine that nodes have while the run lasts."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from isl_emu.errors import MachineError
from isl_emu.linkplan.plan import LinkPlan
from isl_emu.network import messages
from isl_emu.network.borrowed import borrow, give_back, state_of
from isl_emu.nodes.namespaces import enter_network, in_own_thread
from isl_emu.nodes.netlink import change_here
from isl_emu.nodes.nodespaces import NodeSpace, make_silent_space, remove_space_file
from isl_emu.parts.activity import Activity
from isl_emu.parts.live_run import LiveRun
from isl_emu.parts.part import Part, Preparation, Source, Wire, as_warning
from isl_emu.runs.directory import RunDirectory
from isl_emu.runs.folder import RunFolder
from isl_emu.scenario.hardware import Hardware
from isl_emu.scenario.model import Scenario

ETH_P_ALL = 3  # linux/if_ether.h
SOL_PACKET, PACKET_ADD_MEMBERSHIP, PACKET_MR_PROMISC, PACKET_IGNORE_OUTGOING = 263, 1, 1, 23  # linux/if_packet.h


class HardwarePart(Part):
    key = "hardware"

    def endpoints(self, scenario: Scenario, plan: LinkPlan) -> Iterable[str]:
        return [table.node for table in scenario.hardware]

    def real_time(self, scenario: Scenario) -> Iterable[str]:
        for table in scenario.hardware:
            yield f"what is plugged in at {table.interface} has a clock of its own, which does not wait"

    def checks(self, scenario: Scenario) -> Iterable[Callable[[], object]]:
        yield from (partial(as_warning, state_of, table.interface) for table in scenario.hardware)

    def prepare(self, source: Source, place: str) -> Preparation:
        for table in source.scenario.hardware:
            state_of(table.interface)  # so that an error comes now
            if os.geteuid() != 0:
                raise MachineError(
                    f"hardware: {table.interface} is to be a node's alone, but only root may take an interface away "
                    "from the machine; run as root, or use a way_out"
                )
        return Preparation()

    def wires(self, scenario: Scenario) -> Iterable[Wire]:
        yield from (partial(_wire, table.interface) for table in scenario.hardware)

    def one_guest(self, source: Source) -> Iterable[str]:
        if source.scenario.hardware:
            yield "[[hardware]] is plugged in at one kernel"

    def start(self, live: LiveRun) -> Iterable[Activity]:
        """Each node's interface, from outside if this is a guest, else from this machine itself."""
        first = len(live.scenario.leading_out)  # of the guest's devices, those of ways out come first
        for number, table in enumerate(live.scenario.hardware, first):
            space = next(space for space in live.net.backend.spaces if space.node == table.node)
            if Path("/sys/class/net", f"vec{number}").exists():
                _rename(f"vec{number}", table.interface, space)
            else:
                live.undo.callback(give_back, live.net.run_directory)
                borrow(live.net.run_directory, table.interface, space.path)
            _set_up(space, table)
        return ()


def _rename(device: str, name: str, space: NodeSpace) -> None:
    """Move an interface of this process's network into a node, under another name."""
    with open(space.path, "rb") as namespace:
        change_here([messages.link_moved(socket.if_nametoindex(device), name, namespace.fileno())], f"interface {name}")


def _set_up(space: NodeSpace, table: Hardware) -> None:
    index = in_own_thread(_index, space.path, table.interface)
    wanted = [messages.link_up(index)]
    if table.address:
        address, _, prefix = table.address.partition("/")
        wanted.append(messages.interface_address(address, int(prefix), index))
    space.netlink.demand(wanted, f"hardware of {space.node}")


def _index(netns_path: str, name: str) -> int:
    enter_network(netns_path)
    return socket.if_nametoindex(name)


@contextmanager
def _wire(name: str, folder: RunFolder, run: RunDirectory) -> Iterator[int]:
    """A guest's end of an interface, which is meanwhile in a network where nobody else sends."""
    try:
        path = make_silent_space(run.run_id, f"hardware-{name}")
    except OSError as error:
        raise MachineError(
            f"hardware: no network can be made for {name} ({error}), but it is to be there alone; run as root"
        ) from None
    try:
        try:
            borrow(run, name, path, whole_frames=True)
            with in_own_thread(_listen, path, name) as listening:
                yield listening.fileno()
        finally:
            give_back(run)
    finally:
        remove_space_file(path)


def _listen(netns_path: str, name: str) -> socket.socket:
    """A socket that takes and gives all frames of an interface, one by one as they were on the wire."""
    enter_network(netns_path)
    index = socket.if_nametoindex(name)
    change_here([messages.link_up(index)], f"interface {name}")
    found = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    found.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    found.bind((name, ETH_P_ALL))
    membership = struct.pack("=iHH8s", index, PACKET_MR_PROMISC, 0, b"")  # a guest has an address of its own
    found.setsockopt(SOL_PACKET, PACKET_ADD_MEMBERSHIP, membership)
    return found
