"""The way out on the kernel that has the network itself: routes towards the gateway, and its TAP interface."""

from __future__ import annotations

import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from ipaddress import IPv4Network
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from isl_emu.errors import MachineError
from isl_emu.network.desired import ROUTE
from isl_emu.nodes.namespaces import enter_network
from isl_emu.parts.way_out.nat import library
from isl_emu.parts.way_out.part import WayOutPart
from isl_emu.routing.forwarding import NO_ROUTE
from isl_emu.scenario.way_out import WayOut
from tests.nets import live_net
from tests.plans import MS, make_plan

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("netem")]
SERVER = "198.51.100.7"
OUT, HARDWARE = IPv4Network("0.0.0.0/0"), IPv4Network("192.168.50.0/24")


def _routes(netns_path: str, *words: str) -> str:
    command = ["ip", "-n", Path(netns_path).name, "route", *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _asked(netns_path: str) -> bytes:
    """What comes back of a datagram to the server."""
    enter_network(netns_path)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(20)
        asking.sendto(b"hello", (SERVER, 8000))
        return asking.recv(100)


def test_routes_beyond_a_node_follow_those_to_it(tmp_path: Path) -> None:
    plan = make_plan(3, [], [{(0, 1): 5 * MS, (1, 2): 5 * MS, (0, 2): 50 * MS}])
    beyond = [("p00s02", OUT), ("p00s02", HARDWARE)]
    with live_net(plan, tmp_path, beyond=beyond) as (net, replay):
        assert replay.verify_all() == []
        first, gateway = net.get("p00s00").netns_path, net.get("p00s02").netns_path
        for network in ("default", str(HARDWARE)):
            assert "via 10.0.0.2 dev to-p00s01" in _routes(first, "show", network)
            assert _routes(gateway, "show", network) == ""
        assert _routes(first, "get", "10.0.0.3").startswith("10.0.0.3 via 10.0.0.2")
        with pytest.raises(subprocess.CalledProcessError):  # no node has that address, and it does not get out
            _routes(first, "get", "10.0.0.77")
        for link, shown in ((1, "via 10.0.0.3 dev to-p00s02"), (NO_ROUTE, None)):
            net.backend.change_routes(np.array([(0, 2, link)], ROUTE))
            for network in ("default", str(HARDWARE)):
                found = _routes(first, "show", network)
                assert found == "" if shown is None else shown in found


def test_a_tap_interface_leads_out_and_goes_with_the_network(tmp_path: Path) -> None:
    try:
        library()
    except MachineError as error:
        pytest.skip(str(error))
    plan = make_plan(2, [], [{(0, 1): 5 * MS}])
    subprocess.run(["ip", "address", "add", f"{SERVER}/32", "dev", "lo"], check=True)
    try:
        with (
            live_net(plan, tmp_path, beyond=[("p00s01", OUT)]) as (net, _),
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server,
            ExitStack() as undo,
        ):
            server.bind((SERVER, 8000))
            server.settimeout(20)
            live = SimpleNamespace(
                scenario=SimpleNamespace(way_out=WayOut(gateway="p00s01")), net=net, undo=undo,
                folder=SimpleNamespace(journal=tmp_path),
            )  # fmt: skip
            (translating,) = WayOutPart().start(live)
            for node in ("p00s00", "p00s01"):
                with ThreadPoolExecutor(1) as asking:
                    answer = asking.submit(_asked, net.get(node).netns_path)
                    said, who = server.recvfrom(100)
                    server.sendto(said.upper(), who)
                    assert (answer.result(), who[0]) == (b"HELLO", SERVER)  # it came as this machine's own
            translating.check()
            (watched,) = translating.watched()
            watched.process.kill()
            watched.process.wait()
            with pytest.raises(MachineError, match="what translates addresses has ended"):
                translating.check()
        shown = subprocess.run(["ip", "-brief", "link"], capture_output=True, text=True, check=True).stdout
        assert "outside" not in shown
    finally:
        subprocess.run(["ip", "address", "del", f"{SERVER}/32", "dev", "lo"], check=True)
