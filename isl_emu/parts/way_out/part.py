"""The way out: a gateway behind which the machine's own network lies, its addresses translated."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import subprocess
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from isl_emu.errors import MachineError
from isl_emu.linkplan.plan import LinkPlan
from isl_emu.network import messages
from isl_emu.network.kernel import ANYWHERE, ANYWHERE6
from isl_emu.network.routes import beyond_route
from isl_emu.nodes.namespaces import enter_network, in_own_thread
from isl_emu.nodes.netlink import change_here
from isl_emu.parts.activity import Activity
from isl_emu.parts.live_run import LiveRun
from isl_emu.parts.nodes.part import set_sysctls
from isl_emu.parts.part import Part, Preparation, Source, Wire, as_warning
from isl_emu.parts.way_out.nat import library, without_ipv6
from isl_emu.runs.directory import RunDirectory
from isl_emu.runs.endpoints import OUTSIDE, OUTSIDE6, OUTSIDE6_MACHINE, OUTSIDE_MACHINE
from isl_emu.runs.folder import RunFolder
from isl_emu.runs.process import Watched, end, last_line, start_module
from isl_emu.scenario.model import Scenario

KEY = "way_out"
INTERFACE = "outside"  # of the gateway
WIRE = "vec0"  # the same interface, as a guest kernel has it at first
NO_QUEUE_LIMIT = 1 << 20  # byte that frames on their way between two processes may take
TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x2, 0x1000  # linux/if_tun.h


class WayOutPart(Part):
    key = KEY

    def endpoints(self, scenario: Scenario, plan: LinkPlan) -> Iterable[str]:
        return scenario.leading_out

    def real_time(self, scenario: Scenario) -> Iterable[str]:
        if scenario.way_out:
            yield "way_out leads to the machine's own network, whose answers come by the machine's clock"

    def checks(self, scenario: Scenario) -> Iterable[Callable[[], object]]:
        if scenario.way_out:
            yield partial(as_warning, library)
            yield without_ipv6

    def prepare(self, source: Source, place: str) -> Preparation:
        if source.scenario.way_out:
            library()  # so that an error comes now
            if told := without_ipv6():
                return Preparation(leave=lambda folder, steps: steps.note(f"Warning: {told}"))
        return Preparation()

    def wires(self, scenario: Scenario) -> Iterable[Wire]:
        if scenario.way_out:
            yield _wire

    def one_guest(self, source: Source) -> Iterable[str]:
        if source.scenario.way_out:
            yield "[way_out] leads out of one kernel"

    def start(self, live: LiveRun) -> Iterable[Activity]:
        """The gateway's interface, and where a guest has none from outside, the translator behind it."""
        if not (way_out := live.scenario.way_out):
            return
        space = next(space for space in live.net.backend.spaces if space.node == way_out.gateway)
        if Path("/sys/class/net", WIRE).exists():
            with open(space.path, "rb") as namespace:
                index = socket.if_nametoindex(WIRE)
                change_here([messages.link_moved(index, INTERFACE, namespace.fileno())], "way out")
        else:
            tap = in_own_thread(_tap, space.path)
            live.undo.callback(os.close, tap)
            process = _translator(live.folder, tap)
            live.undo.callback(end, [process])
            yield Translating(process, live.folder)
        index = in_own_thread(_index, space.path)
        address, _, prefix = OUTSIDE.partition("/")
        wanted = [messages.link_up(index), messages.interface_address(address, int(prefix), index)]
        wanted.append(beyond_route(ANYWHERE, OUTSIDE_MACHINE, index))
        # the translator asks for nodes by their own addresses: the gateway answers for all, and at once
        own = {f"net.ipv4.conf.{INTERFACE}.proxy_arp": "1", f"net.ipv4.neigh.{INTERFACE}.proxy_delay": "0"}
        if socket.AF_INET6 in live.net.backend.families:
            address, _, prefix = OUTSIDE6.partition("/")
            wanted.append(messages.interface_address(address, int(prefix), index))
            wanted.append(beyond_route(ANYWHERE6, OUTSIDE6_MACHINE, index))
        space.netlink.demand(wanted, f"way out of {space.node}")
        in_own_thread(set_sysctls, space.node, space.path, own)


class Translating(Activity):
    """The translator on this machine; without it the gateway leads nowhere, which fails the run."""

    def __init__(self, process: subprocess.Popen[bytes], folder: RunFolder):
        self._process, self._folder = process, folder

    def check(self) -> None:
        _check(self._process, self._folder)

    def watched(self) -> Iterable[Watched]:
        yield Watched(self._process, KEY, log=_log(self._folder))


def _log(folder: RunFolder) -> Path:
    return folder.journal / f"{KEY}.log"


def _check(process: subprocess.Popen[bytes], folder: RunFolder) -> None:
    if process.poll() is not None:
        raise MachineError(
            f"way_out: what translates addresses has ended ({last_line(_log(folder))}), but it lasts as long as the "
            f"run; see journal/{KEY}.log"
        )


@contextmanager
def _wire(folder: RunFolder, run: RunDirectory) -> Iterator[int]:
    """A guest's end of the way out; at the other one is a translator."""
    ours, guests = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, guests:
        for one in (ours, guests):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, NO_QUEUE_LIMIT)
        process = _translator(folder, ours.fileno())
        try:
            yield guests.fileno()
            _check(process, folder)
        finally:
            end([process])


def _translator(folder: RunFolder, file: int) -> subprocess.Popen[bytes]:
    """A process of its own that translates between frames of a file and the network where this process is."""
    words = ["isl_emu.parts.way_out.nat", "--file", str(file), "--parent", str(os.getpid())]
    with _log(folder).open("wb") as log:
        process = start_module(words, stdout=subprocess.PIPE, stderr=log, pass_fds=(file,))
    assert process.stdout is not None
    with process.stdout as said:
        if said.readline() != b"ready\n":
            process.wait()
            _check(process, folder)
    return process


def _tap(netns_path: str) -> int:
    """A descriptor of a new interface in a network, which gives and takes its frames."""
    enter_network(netns_path)
    try:
        tap = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", INTERFACE.encode(), IFF_TAP | IFF_NO_PI))
    except OSError as error:
        raise MachineError(
            f"way_out: this kernel gives no TAP interface ({error.strerror}), but the gateway needs one; load it "
            "(modprobe tun), or use --machine guest"
        ) from None
    return tap


def _index(netns_path: str) -> int:
    enter_network(netns_path)
    return socket.if_nametoindex(INTERFACE)
