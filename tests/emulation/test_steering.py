"""Paths in headers: packets carry the segments or labels of the way that the plan has for them, in exact time."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from isl_emu import captures
from isl_emu.captures import Captured
from isl_emu.network.naming import segment
from isl_emu.units import NS_PER_S
from tests.exact_guest import needs_exact_time
from tests.runs import finished, rows
from tests.scenarios import table

pytestmark = [pytest.mark.emulation, needs_exact_time]

SCENARIO = """
name = "steered"
description = "a ring that loses a laser"
seed = 1

[time]
start = 2026-03-20T14:00:00Z
duration = "6 s"
step = "1 s"

[[shell]]
name = "ring"
walker = { pattern = "delta", total = 12, planes = 1 }
altitude = "525 km"
inclination = "97.5 deg"

[shell.lasers]
topology = "ring"
rate = "10 Mbit/s"
mtu = "2000 B"

[probes]
interval = "500 ms"
pairs = [["p00s00", "p00s03"], ["p00s00", "p00s01"]]
"""
CUT = table("[fault]", name="cut", links=["p00s02 - p00s03"], effect="cut", at="3 s", known="at once", **{"for": "9 s"})
AROUND = 9  # links of the way round the other side
SIX = ["ping", "-6", "-c", "1", "-s", "1000", "p00s03"]  # on the longer way
SEEN = (
    table("[capture]", name="seen", link=["p00s00", "p00s01"])
    + table("[capture]", name="back", node="p00s11")
    + table("[capture]", name="last", link=["p00s00", "p00s11"])
)
PING = table("[program]", name="ping", node="p00s00", command=SIX, at="4 s")


@pytest.fixture(scope="module", params=["srv6", "mpls"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, str]:
    """A run whose packets are steered: in what way, its folder, and its summary."""
    out = tmp_path_factory.mktemp(request.param) / "out"
    routing = table("routing", forwarding=request.param)
    return request.param, out, finished(SCENARIO + routing + CUT + SEEN + PING, out, "--clock", "exact")


def _segments(packet: Captured) -> list[str]:
    """The segments of a captured frame, in the order of its way."""
    count = packet.data[14 + 40 + 4] + 1
    assert packet.data[14 + 6] == 43 and packet.data[14 + 40 + 2] == 4  # a routing header, of segments
    assert packet.data[14 + 40 + 3] == count - 1  # nothing of it has been done yet
    at = 14 + 40 + 8
    words = [packet.data[at + 16 * row : at + 16 * row + 16] for row in range(count)]
    return [segment(int.from_bytes(word[:8], "big") % 2**32 - 1, word[15]) for word in reversed(words)]


def test_probes_take_as_long_as_the_plan_and_their_headers_say(run: tuple[str, Path, str]) -> None:
    forwarding, out, said = run
    assert "VALID: in exact time" in said
    arrived = [row for row in rows(out, "probes") if not row["straddles_change"]]
    assert {row["hops"] for row in arrived} == {1, 3, AROUND}
    assert {row["hops_seen"] for row in arrived} == {None}
    assert all(row["delay_ns"] is not None and abs(row["error_ns"]) <= row["hops"] for row in arrived)
    for row in arrived:
        more = (48 + 16 * row["hops"]) * row["hops"] if forwarding == "srv6" else 2 * row["hops"] * (row["hops"] - 1)
        assert row["planned_serialisation_ns"] == (58 * row["hops"] + more) * 8 * NS_PER_S // 10_000_000


def test_packets_carry_their_way(run: tuple[str, Path, str]) -> None:
    forwarding, out, _ = run
    first = {"seen": 1, "last": 11}  # the neighbour on either way
    for name, neighbour in first.items():
        peer = f"p00s{neighbour:02d}"
        packets = [one for one in captures.read(out, name) if {one.node, one.peer} == {"p00s00", peer}]
        sent = [one for one in packets if one.node == "p00s00" and one.outbound]
        way = [1, 2, 3] if neighbour == 1 else list(range(11, 2, -1))
        if forwarding == "srv6":
            probes = [one for one in sent if one.length == 58 + 48 + 16 * len(way)]
            assert probes and all(len(_segments(one)) == len(way) for one in probes)
            wanted = [*(segment(node, 1) for node in way[:-1]), segment(way[-1], 4)]
            assert {tuple(_segments(one)) for one in probes} == {tuple(wanted)}
        else:
            probes = [one for one in sent if one.length == 58 + 4 * (len(way) - 1)]
            assert probes and {one.data[12:14] for one in probes} == {b"\x88\x47"}
            for one in probes:
                labels = struct.unpack_from(f"!{len(way) - 1}I", one.data, 14)
                assert [label >> 8 & 1 for label in labels] == [0] * (len(way) - 2) + [1]
                assert len({label >> 12 for label in labels}) <= 2  # a satellite of a ring has two


def test_ipv6_is_steered_as_well(run: tuple[str, Path, str]) -> None:
    _, out, _ = run
    (ping,) = [row for row in rows(out, "programs") if row["name"] == "ping"]
    assert ping["status"] == 0


def test_captures_find_a_packet_again_whose_headers_have_changed(run: tuple[str, Path, str]) -> None:
    _, out, _ = run
    packets = captures.read(out, "back")
    arrived = [one for one in packets if one.node == "p00s11" and one.peer == "p00s00" and not one.outbound]
    passed_on = [one for one in packets if one.node == "p00s11" and one.peer == "p00s10" and one.outbound]
    found = captures.one_way(arrived, passed_on, out).to_pylist()
    assert arrived and all(row["delay_ns"] is not None for row in found)
    told = captures.dissected(arrived, out).to_pylist()
    assert {(row["source"], row["destination"]) for row in told} == {("p00s00", "p00s03")}
