"""Live networks for tests that need a kernel: built from hand-made plans, torn down whatever happens."""

from __future__ import annotations

import fcntl
import re
import shutil
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from isl_emu.linkplan.plan import LinkPlan
from isl_emu.network.kernel import Beyond
from isl_emu.network.net import IslNet, build_net
from isl_emu.network.probing import missing_features
from isl_emu.network.replay import Replay
from isl_emu.nodes.namespaces import enter_network, in_own_thread
from isl_emu.nodes.nodespaces import NodeSpace, make_spaces, remove_spaces
from isl_emu.routing.forwarding import RoutePlan
from isl_emu.runs.directory import RunDirectory, create_run_directory
from isl_emu.runs.endpoints import Endpoint
from isl_emu.timebase import MonotonicClock
from tests.plans import make_routes

SO_RCVBUFFORCE = 33  # asm-generic/socket.h
SIOCSIFFLAGS, IFF_UP = 0x8914, 1  # linux/sockios.h, linux/if.h


def need_kernel() -> None:
    """Skip the test where the kernel or the user cannot make networks, and say what is missing."""
    if missing := missing_features():
        pytest.skip("; ".join(missing))


@contextmanager
def run_directory() -> Iterator[RunDirectory]:
    """A registered run, unregistered at the end."""
    run = create_run_directory()
    try:
        yield run
    finally:
        shutil.rmtree(run.path)


@contextmanager
def live_net(
    plan: LinkPlan, journal: Path, bias_ns: int = 0, routes: RoutePlan | None = None, beyond: Beyond = ()
) -> Iterator[tuple[IslNet, Replay]]:
    """The net of a plan with instant 0 applied; by the shortest paths if no routes are given."""
    routes = routes or make_routes(plan)
    with run_directory() as run:
        net = build_net(plan, run, aliases=routes.aliases, beyond=beyond)
        try:
            replay = Replay(plan, routes, net.backend, MonotonicClock(), journal, bias_ns)
            replay.apply_initial()
            yield net, replay
        finally:
            net.stop()


@contextmanager
def loopback_spaces(run: RunDirectory, nodes: Sequence[str]) -> Iterator[list[NodeSpace]]:
    """Namespaces of nodes without any link, each with its own loopback."""
    made: list[NodeSpace] = []
    try:
        make_spaces(run.run_id, nodes, made)
        for space in made:
            in_own_thread(_switch_loopback_on, space.path)
        yield made
    finally:
        remove_spaces(made)


def _switch_loopback_on(path: str) -> None:
    enter_network(path)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh", b"lo", IFF_UP))


def endpoints_of(net: IslNet, port: int | None = None) -> dict[str, Endpoint]:
    """Where the nodes of a net are; with the port of their servers, if they have any."""
    return {node.name: Endpoint(node.netns_path, node.address, port) for node in net.hosts}


def udp_socket(net: IslNet, name: str, port: int = 0) -> socket.socket:
    """A UDP socket bound to a node's address."""

    def make() -> socket.socket:
        enter_network(net.get(name).netns_path)
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 22)
        made.bind((net.get(name).address, port))
        return made

    return in_own_thread(make)


def ping_times_ms(output: str) -> list[float]:
    """The round trips in what `ping` printed."""
    return [float(text) for text in re.findall(r"time=([\d.]+) ms", output)]


def ping_lost(output: str) -> int:
    """How many requests got no answer, by ping's own count."""
    sent, received = re.search(r"(\d+) packets transmitted, (\d+) received", output).groups()
    return int(sent) - int(received)
