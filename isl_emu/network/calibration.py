"""How much longer than set a netem delays a packet on this machine: measured on a throw-away chain before each run.

A netem releases a packet when a kernel timer fires and its softirq has run, so a packet leaves a little late; this adds
up along a path. What the two end points cost (waking up, answering) occurs once in a path. The two are told apart by
round trips over one hop and over three. Taken with an idle machine: load adds to it.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from dataclasses import dataclass
from datetime import datetime, timezone

import numpy as np

from isl_emu.errors import NetworkError
from isl_emu.linkplan.plan import LinkPlan, Links, Nodes
from isl_emu.network.desired import ROUTE, changed_ends, ends_at, initial_ends
from isl_emu.network.kernel import KernelBackend
from isl_emu.network.naming import ipv4_address
from isl_emu.nodes.namespaces import enter_network, in_own_thread
from isl_emu.runs.directory import RunDirectory
from isl_emu.timebase import TimeGrid
from isl_emu.units import NS_PER_S

DELAY_NS = 10_000_000
RATE_BIT_S = 1_000_000_000
REQUEST_BYTE = 98  # with Ethernet's and IP's headers
SERIALISATION_NS = 8 * REQUEST_BYTE * NS_PER_S // RATE_BIT_S  # of each netem, as planned: no bias
HOPS = (1, 3)
SAMPLES = 40  # of each path; at this spacing a measurement takes 0.9 s
SPACING_NS = 10_000_000  # between requests, to the paths in turn
PATIENCE_NS = 500_000_000
ECHO = struct.Struct("!BBHHH")  # type, code, checksum, identifier, sequence (RFC 792)
ECHO_REQUEST, ECHO_REPLY = 8, 0
PAYLOAD_BYTE = 56
SO_TIMESTAMPNS = 35  # asm-generic/socket.h
TIMESPEC = struct.Struct("=qq")


@dataclass(frozen=True)
class NetemBias:
    """What was measured, ns.

    Args:
        bias_ns: what each netem adds; take it off every delay. Never negative.
        endpoint_ns: what a round trip takes beyond its netems, once.
        residue_ns: what each netem still adds with the bias taken off; negative if it is now too short.
        samples_ns: number of hops -> round trips as measured without compensation.
    """

    bias_ns: int
    endpoint_ns: int
    residue_ns: int
    samples_ns: dict[int, tuple[int, ...]]


def measure_bias(run: RunDirectory) -> NetemBias:
    """Measure on a chain of four throw-away nodes, then once more with the bias taken off; about 2 s.

    A round trip is from before the request is sent until the kernel's receive time stamp of the reply.

    Raises:
        NetworkError: the kernel refuses, or more than half of the requests got no reply.
    """
    plan = _chain()
    there = [(node, destination, node) for destination in HOPS for node in range(destination)]
    back = [(node, 0, node - 1) for node in range(1, max(HOPS) + 1)]
    backend = KernelBackend(plan, run.run_id)
    try:
        ends = _set_delays(backend, initial_ends(plan, 0), 0)
        backend.change_routes(np.array(there + back, ROUTE))
        before = in_own_thread(_round_trips, backend.spaces[0].path)
        bias_ns, endpoint_ns = _per_netem(before)
        bias_ns = max(bias_ns, 0)
        _set_delays(backend, ends, bias_ns)
        residue_ns, _ = _per_netem(in_own_thread(_round_trips, backend.spaces[0].path))
    finally:
        backend.close()
    return NetemBias(bias_ns, endpoint_ns, residue_ns, before)


def _chain() -> LinkPlan:
    """Nodes 0 - 1 - 2 - 3 in a row, link i from node i to the next, for one instant."""
    links = max(HOPS)
    near = np.arange(links, dtype=np.int32)
    delay_ns, rate_bit_s = np.full(links, DELAY_NS), np.full(links, RATE_BIT_S)
    return LinkPlan(
        grid=TimeGrid(datetime(2000, 1, 1, tzinfo=timezone.utc), NS_PER_S, 1),
        nodes=Nodes(tuple(f"bias-{node}" for node in range(links + 1)), np.zeros(links + 1, np.uint8)),
        links=Links(near, near + 1, np.zeros(links, np.uint8), delay_ns.copy()),
        row_start=np.array([0, links]),
        row_link=near.copy(),
        row_delay_ns=delay_ns,
        row_rate_ab_bit_s=rate_bit_s,
        row_rate_ba_bit_s=rate_bit_s.copy(),
        rate_scale=1.0,
        scenario_toml="",
    )


def _set_delays(backend: KernelBackend, before: np.ndarray, bias_ns: int) -> np.ndarray:
    """Give all ends the plan's delays with the bias taken off; their state afterwards."""
    ends = ends_at(backend.plan, 0, before, bias_ns)
    which = changed_ends(before, ends)
    backend.change_ends(which, ends[which])
    return ends


def _per_netem(round_trips_ns: dict[int, tuple[int, ...]]) -> tuple[int, int]:
    """What one netem adds, and what the end points add once.

    Lower quartiles: other load on the machine only ever adds time, and taking off too much would make packets faster
    than light.
    """
    few, many = HOPS
    planned_ns = DELAY_NS + SERIALISATION_NS
    excess = {hops: np.quantile(round_trips_ns[hops], 0.25) - 2 * hops * planned_ns for hops in HOPS}
    netem = (excess[many] - excess[few]) / (2 * (many - few))
    return round(netem), round(excess[few] - 2 * few * netem)


def _round_trips(netns_path: str) -> dict[int, tuple[int, ...]]:
    """Ping the ends of both paths in turn, from a thread of its own, which moves into the namespace."""
    enter_network(netns_path)
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as echo:
        echo.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        sent, received = _ping_in_turn(echo, SAMPLES * len(HOPS))
    times: dict[int, list[int]] = {hops: [] for hops in HOPS}
    for sequence in sorted(received):
        times[HOPS[sequence % len(HOPS)]].append(received[sequence] - sent[sequence])
    if min(map(len, times.values())) < SAMPLES // 2:
        raise NetworkError(
            f"calibration: {len(received)} of {len(sent)} pings were answered, but half must be; run isl-emu doctor"
        )
    return {hops: tuple(found) for hops, found in times.items()}


def _ping_in_turn(echo: socket.socket, count: int) -> tuple[dict[int, int], dict[int, int]]:
    """Send `count` requests in time; sequence number -> when it was sent, and when its reply came, both in UTC ns."""
    sent: dict[int, int] = {}
    received: dict[int, int] = {}
    start_ns = time.monotonic_ns()
    for sequence in range(count):
        _receive_until(echo, start_ns + sequence * SPACING_NS, received, count)
        target = ipv4_address(HOPS[sequence % len(HOPS)])  # node n is n hops away
        request = _echo_request(sequence)
        sent[sequence] = time.time_ns()
        echo.sendto(request, (target, 0))
    _receive_until(echo, time.monotonic_ns() + PATIENCE_NS, received, count)
    return sent, received


def _receive_until(echo: socket.socket, deadline_ns: int, received: dict[int, int], count: int) -> None:
    """Add the replies that come before a deadline on CLOCK_MONOTONIC, until there are `count` in all."""
    while len(received) < count and (left_ns := deadline_ns - time.monotonic_ns()) > 0:
        if not select.select([echo], [], [], left_ns / NS_PER_S)[0]:
            return
        packet, ancillary, _, _ = echo.recvmsg(256, 64)
        kind, _, _, identifier, sequence = ECHO.unpack_from(packet, 4 * (packet[0] & 0xF))  # behind the IPv4 header
        if kind == ECHO_REPLY and identifier == os.getpid() & 0xFFFF:
            seconds, ns = TIMESPEC.unpack(ancillary[0][2])
            received[sequence] = seconds * NS_PER_S + ns


def _echo_request(sequence: int) -> bytes:
    """An ICMP echo request with as many bytes as ping's, all of them 0 so that they do not count in its checksum."""
    identifier = os.getpid() & 0xFFFF
    total = (ECHO_REQUEST << 8) + identifier + sequence
    checksum = ~(total + (total >> 16)) & 0xFFFF
    return ECHO.pack(ECHO_REQUEST, 0, checksum, identifier, sequence) + bytes(PAYLOAD_BYTE)
