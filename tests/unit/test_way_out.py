"""The way out: who may have one, what of the machine it reaches, and that its process ends with what it serves."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from isl_emu.errors import MachineError, ScenarioError
from isl_emu.experiment import place_for
from isl_emu.parts.way_out import nat
from isl_emu.parts.way_out.nat import library, may_leave
from isl_emu.progress import Screen, Steps
from isl_emu.runs.endpoints import OUTSIDE, OUTSIDE6_MACHINE, OUTSIDE_MACHINE
from isl_emu.runs.process import start_module
from isl_emu.runs.wishes import Trust, Wishes
from isl_emu.scenario.parse import parse_scenario
from tests.scenarios import quiet_ring, table

WAY_OUT = quiet_ring() + table("way_out", gateway="gs-chengdu")
GATEWAY, TRANSLATOR = b"\x02\0\0\0\0\x05", b"\xff" * 6  # the latter's own is learnt


def _libslirp_is_missing() -> str | None:
    try:
        library()
    except MachineError as error:
        return str(error)
    return None


needs_libslirp = pytest.mark.skipif(_libslirp_is_missing() is not None, reason=str(_libslirp_is_missing()))


def test_a_stranger_gets_out_only_if_the_user_says_so() -> None:
    leading_out = parse_scenario(WAY_OUT, "the test").leading_out
    assert leading_out == ("gs-chengdu",)
    for trust in (Trust(), Trust(all=True), Trust(keys=("A",))):
        with pytest.raises(ScenarioError, match="gs-chengdu leads out to this machine's own network.*--allow-network"):
            trust.check_network(leading_out)
    Trust(network=True).check_network(leading_out)
    Trust().check_network(parse_scenario(quiet_ring(), "the test").leading_out)


def test_a_node_gets_an_interface_only_if_the_user_says_so() -> None:
    tables = table("[hardware]", node="gs-chengdu", interface="eth7", address="192.168.50.1/24")
    scenario = parse_scenario(quiet_ring() + tables, "the test")
    assert scenario.foreign == ("hardware.interface: gives gs-chengdu this machine's eth7",)
    for trust in (Trust(), Trust(all=True, network=True), Trust(interfaces=("eth8",))):
        with pytest.raises(ScenarioError, match="hardware.interface: is eth7, .*add --allow-interface eth7"):
            trust.check_network(scenario.leading_out, scenario.wanted_interfaces)
    Trust(interfaces=("eth7",)).check_network(scenario.leading_out, scenario.wanted_interfaces)
    with pytest.raises(MachineError, match="what is plugged in at eth7 has a clock of its own"):
        place_for(scenario, "auto", "exact", Wishes(), Steps(Screen(quiet=True)))


def test_a_sweep_is_allowed_what_its_runs_are() -> None:
    assert Trust(network=True, keys=("A",), programs=False).words() == [
        "--no-programs", "--allow-network", "--allow-key", "A",
    ]  # fmt: skip
    assert Trust(interfaces=("eth7",)).words() == ["--allow-interface", "eth7"]
    assert Trust(all=True).words() == ["--trust"] and Trust().words() == []


def test_it_is_told_beforehand_and_refused_with_programs() -> None:
    scenario = parse_scenario(WAY_OUT, "the test")
    assert scenario.foreign == ("way_out.gateway: leads to this machine's network from gs-chengdu",)
    with pytest.raises(ScenarioError, match="--no-programs"):
        Trust(programs=False).check(scenario.foreign, ())


def test_exact_time_refuses_it_with_the_reason() -> None:
    with pytest.raises(MachineError, match="way_out leads to the machine's own network, whose answers come by the"):
        place_for(parse_scenario(WAY_OUT, "the test"), "auto", "exact", Wishes(), Steps(Screen(quiet=True)))


@pytest.mark.parametrize(
    ("to", "leaves"),
    [
        ("198.51.100.7", True), ("10.0.0.1", True), ("127.0.0.1", False), ("127.255.0.9", False), ("0.0.0.0", False),
        ("224.0.0.251", False), ("255.255.255.255", False),
    ],
)  # fmt: skip
def test_nothing_gets_at_this_machines_loopback(to: str, leaves: bool) -> None:
    assert may_leave(_datagram(TRANSLATOR, to, 9, b"")) == leaves


@pytest.mark.parametrize(
    ("to", "leaves"),
    [
        ("2001:db8::7", True), ("fd00::1", True), ("::1", False), ("::ffff:127.0.0.1", False), ("::127.0.0.1", False),
        ("fe80::1", False), ("ff02::1", False), ("::", False), (OUTSIDE6_MACHINE, False),
    ],
)  # fmt: skip
def test_nothing_gets_at_it_by_ipv6_either(to: str, leaves: bool) -> None:
    assert may_leave(_packet6(to, 17, 0)) == leaves
    assert may_leave(_packet6(to, 58, 135)) and may_leave(_packet6(to, 58, 136))  # who has that address, and who tells
    assert not may_leave(_packet6(to, 17, 0)[:54])


def test_a_machine_without_ipv6_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class Nowhere(socket.socket):
        def connect(self, address: object) -> None:
            raise OSError(errno.ENETUNREACH, "Network is unreachable")

    monkeypatch.setattr(nat.socket, "socket", Nowhere)
    assert nat.without_ipv6() == (
        "way_out: this machine has no route by IPv6, but packets leave as its own do; those by IPv4 leave, those by "
        "IPv6 come back as unreachable"
    )


def test_only_whole_packets_and_arp_get_out() -> None:
    assert may_leave(_question())
    assert not may_leave(b"\xff" * 12 + b"\x88\xcc" + bytes(60))  # LLDP
    assert not may_leave(_datagram(TRANSLATOR, "198.51.100.7", 9, b"")[:33])
    assert not may_leave(b"")


@needs_libslirp
def test_packets_of_nodes_become_packets_of_this_machine_but_not_to_its_loopback() -> None:
    with _translating() as (guest, process), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(0.5)
        guest.send(_question())
        answer = guest.recv(2000)
        assert answer[12:14] == b"\x08\x06" and answer[28:32] == socket.inet_aton(OUTSIDE_MACHINE)
        port = server.getsockname()[1]
        for to in (OUTSIDE_MACHINE, "127.0.0.1"):  # libslirp's name for it, and its own
            guest.send(_datagram(answer[6:12], to, port, b"in"))
        with pytest.raises(TimeoutError):
            server.recv(100)
        assert process.poll() is None
        if os.geteuid() == 0:
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
            status = dict(line.split(":\t", 1) for line in lines)
            assert status["CapEff"].strip("0") == "" and status["Uid"].split()[0] != "0"


@needs_libslirp
def test_a_node_has_its_answer_by_ipv6(ipv6_of_this_machine: str) -> None:
    with _translating() as (guest, _), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as server:
        server.bind((ipv6_of_this_machine, 0))
        server.settimeout(20)
        udp = struct.pack("!HHHH", 4000, server.getsockname()[1], 10, 0) + b"in"
        addresses = [socket.inet_pton(socket.AF_INET6, one) for one in ("fd00::6", ipv6_of_this_machine)]
        total = sum(struct.unpack("!25H", b"".join(addresses) + struct.pack("!II", len(udp), 17) + udp))
        total = (total & 0xFFFF) + (total >> 16)
        checksum = struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF)
        head = struct.pack("!IHBB", 6 << 28, len(udp), 17, 64) + b"".join(addresses)
        guest.send(TRANSLATOR + GATEWAY + b"\x86\xdd" + head + udp[:6] + checksum + udp[8:])
        data, sender = server.recvfrom(100)
        server.sendto(b"out", sender)
        answer = guest.recv(2000)  # and nobody asks the gateway where the node is
        assert (data, answer[:6], answer[62:]) == (b"in", GATEWAY, b"out")
        assert answer[22:54] == b"".join(reversed(addresses))


@pytest.fixture
def ipv6_of_this_machine() -> str:
    """An address that is not the loopback's."""
    told = [line.split() for line in Path("/proc/net/if_inet6").read_text().splitlines()]
    own = [str(ipaddress.IPv6Address(bytes.fromhex(one[0]))) for one in told if one[3] == "00" and one[5] != "lo"]
    if not own:
        pytest.skip("this machine has no IPv6 beyond its loopback")
    return own[0]


@needs_libslirp
def test_the_translator_ends_with_what_it_serves() -> None:
    with _translating() as (guest, process):
        guest.close()
        assert process.wait(20) == 0


@contextmanager
def _translating() -> Iterator[tuple[socket.socket, subprocess.Popen[bytes]]]:
    """A translator, and the gateway's end of its line."""
    ours, guest = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    words = ["isl_emu.parts.way_out.nat", "--file", str(ours.fileno()), "--parent", str(os.getpid())]
    process = start_module(words, stdout=subprocess.PIPE, pass_fds=(ours.fileno(),))
    ours.close()
    guest.settimeout(20)
    try:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        yield guest, process
    finally:
        guest.close()
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def _question() -> bytes:
    """Who has the translator's address? (RFC 826)"""
    own = socket.inet_aton(OUTSIDE.partition("/")[0])
    head = TRANSLATOR + GATEWAY + b"\x08\x06" + struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1)
    return head + GATEWAY + own + bytes(6) + socket.inet_aton(OUTSIDE_MACHINE)


def _packet6(to: str, kind: int, first: int) -> bytes:
    """A frame with a packet of IPv6 (RFC 8200) whose payload begins with a byte."""
    head = struct.pack("!IHBB", 6 << 28, 8, kind, 64) + socket.inet_pton(socket.AF_INET6, "fd00::1")
    return TRANSLATOR + GATEWAY + b"\x86\xdd" + head + socket.inet_pton(socket.AF_INET6, to) + bytes([first]) + bytes(7)


def _datagram(mac: bytes, to: str, port: int, text: bytes) -> bytes:
    """A frame with UDP in IPv4 (RFC 768, RFC 791)."""
    own = socket.inet_aton(OUTSIDE.partition("/")[0])
    udp = struct.pack("!HHHH", 4000, port, 8 + len(text), 0) + text
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0) + own + socket.inet_aton(to)
    total = sum(struct.unpack("!10H", head))
    checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    return mac + GATEWAY + b"\x08\x00" + head[:10] + struct.pack("!H", checksum) + head[12:] + udp
