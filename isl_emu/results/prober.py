"""The probe process: echo requests between pairs of nodes, all from one loop, to compare measured with planned delay.

A raw socket stays in the network namespace in which it was made, so one process serves every node. A reply is timed by
the kernel's receive stamp: while it waits until this process gets a CPU, it does not become later. The stamp counts in
UTC, so both ends of a round trip do; comparing two clocks with each other would cost more accuracy than a step of UTC
within one round trip, which is rare and shows as an outlier.
"""

from __future__ import annotations

import argparse
import heapq
import json
import selectors
import signal
import socket
import struct
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from isl_emu.network.namespaces import enter_network, in_own_thread
from isl_emu.results.echo import SEQ_COUNT, echo_request, read_reply, with_seq
from isl_emu.results.journal import Journal
from isl_emu.runclock import run_clock
from isl_emu.timebase import Clock, MonotonicClock
from isl_emu.units import NS_PER_S

LOST_AFTER_NS = 3 * NS_PER_S
FIRST_PHASE, LAST_PHASE = 0.2, 0.7  # of a step: changes come at its beginning, and a reply needs some of its rest
RECEIVE_BYTE = 2048

# Source: include/uapi/asm-generic/socket.h, include/uapi/linux/icmp.h
_SO_TIMESTAMPNS = 35
_ICMP_FILTER = 1
_ALL_BUT_ECHO_REPLY = 0xFFFFFFFF & ~(1 << 0)
_TIMESPEC = struct.Struct("@qq")


class Sent(NamedTuple):
    """A probe on its way: its number, and when it was sent by the clock of the run and in UTC."""

    number: int
    t_ns: int
    utc_ns: int


@dataclass
class Probe:
    """One pair that is probed, its next probe's number, and those on their way by their sequence number."""

    a: str
    b: str
    identifier: int
    request: bytes
    socket: socket.socket
    destination: str
    phase_ns: int
    number: int = -1
    awaited: dict[int, Sent] = field(default_factory=dict)


def phase_ns(index: int, count: int, step_ns: int) -> int:
    """How far into a step pair `index` of `count` sends: spread over its middle, away from the changes."""
    return round(step_ns * (FIRST_PHASE + (LAST_PHASE - FIRST_PHASE) * (index + 0.5) / count))


def due_ns(number: int, phase: int, interval_ns: int, step_ns: int) -> int:
    """When a pair's probe `number` is due, ns since the start of the run; away from instants if the interval allows."""
    whole_ns = step_ns if interval_ns >= step_ns else 1
    return number * interval_ns // whole_ns * whole_ns + phase


class Prober:
    """Sends every pair's probes at their absolute times, and writes one journal line per answered or lost probe.

    Args:
        t0_ns: start of the run on the clock.
        duration_ns: when to stop sending, counted from the start.
        interval_ns: spacing of each pair's probes.
        step_ns: spacing of the plan's instants.
    """

    def __init__(
        self,
        journal: Journal,
        probes: Sequence[Probe],
        t0_ns: int,
        duration_ns: int,
        interval_ns: int,
        step_ns: int,
        clock: Clock | None = None,
    ):
        self._journal, self._clock = journal, clock or MonotonicClock()
        self._probes = {probe.identifier: probe for probe in probes}
        self._t0_ns, self._duration_ns = t0_ns, duration_ns
        self._interval_ns, self._step_ns = interval_ns, step_ns
        self._due: list[tuple[int, int]] = []  # a heap of (time, identifier)
        for probe in probes:
            self._schedule(probe)

    def run(self) -> None:
        """Probe until the end of the run and until no reply is awaited any more."""
        with selectors.DefaultSelector() as selector:
            for receiver in {probe.socket for probe in self._probes.values()}:
                selector.register(receiver, selectors.EVENT_READ)
            while (wake_ns := self._next_event_ns()) is not None:
                for key, _ in selector.select(self._clock.timeout_s(self._t0_ns + wake_ns)):
                    self._receive(key.fileobj)  # type: ignore[arg-type]
                self._send_due()
                self._give_up_lost()

    def _now_ns(self) -> int:
        return self._clock.now_ns() - self._t0_ns

    def _next_event_ns(self) -> int | None:
        """When something is to be sent or given up; None when there is nothing left."""
        events = [self._due[0][0]] if self._due else []
        first_sent = [next(iter(probe.awaited.values())) for probe in self._probes.values() if probe.awaited]
        return min(events + [sent.t_ns + LOST_AFTER_NS for sent in first_sent], default=None)

    def _schedule(self, probe: Probe) -> None:
        """Plan the pair's next probe; those whose time has passed are skipped, never sent in a burst."""
        passed = (self._now_ns() - probe.phase_ns) // self._interval_ns
        probe.number = max(probe.number, passed) + 1
        due = due_ns(probe.number, probe.phase_ns, self._interval_ns, self._step_ns)
        if due < self._duration_ns:
            heapq.heappush(self._due, (due, probe.identifier))

    def _send_due(self) -> None:
        while self._due and self._due[0][0] <= self._now_ns():
            probe = self._probes[heapq.heappop(self._due)[1]]
            self._send(probe)
            self._schedule(probe)

    def _send(self, probe: Probe) -> None:
        packet = with_seq(probe.request, probe.number)
        sent = Sent(probe.number, self._now_ns(), time.time_ns())
        try:
            probe.socket.sendto(packet, (probe.destination, 0))
        except OSError:  # no route now, or the queue is full: the probe is lost at once
            self._write(probe, sent, None, None)
        else:
            probe.awaited[probe.number % SEQ_COUNT] = sent

    def _receive(self, receiver: socket.socket) -> None:
        packet, ancillary, _, _ = receiver.recvmsg(RECEIVE_BYTE, socket.CMSG_SPACE(_TIMESPEC.size))
        arrived_ns = arrival_utc_ns(ancillary)
        reply = read_reply(packet)
        probe = self._probes.get(reply.identifier) if reply else None
        if reply and probe and reply.seq in probe.awaited:
            sent = probe.awaited.pop(reply.seq)
            self._write(probe, sent, self._clock.own_ns(arrived_ns - sent.utc_ns), reply.hops)

    def _give_up_lost(self) -> None:
        expired_ns = self._now_ns() - LOST_AFTER_NS
        for probe in self._probes.values():
            for seq in [seq for seq, sent in probe.awaited.items() if sent.t_ns <= expired_ns]:
                self._write(probe, probe.awaited.pop(seq), None, None)

    def _write(self, probe: Probe, sent: Sent, rtt_ns: int | None, hops: int | None) -> None:
        record = {"a": probe.a, "b": probe.b, "seq": sent.number, "t_send_ns": sent.t_ns}
        self._journal.append({**record, "rtt_ns": rtt_ns, "hops_seen": hops})


def arrival_utc_ns(ancillary: Sequence[tuple[int, int, bytes]]) -> int:
    """When a packet arrived, UTC: the kernel's stamp, or now if there is none."""
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS:
            seconds, nanoseconds = _TIMESPEC.unpack(content)
            return seconds * NS_PER_S + nanoseconds
    return time.time_ns()


def open_echo_socket(netns_path: str) -> socket.socket:
    """A raw socket in the given namespace that sends whole IPv4 packets and receives echo replies with their time."""
    return in_own_thread(_open_echo_socket_here, netns_path)


def _open_echo_socket_here(netns_path: str) -> socket.socket:
    enter_network(netns_path)
    echo = socket.socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_ICMP)
    echo.setsockopt(socket.IPPROTO_IP, socket.IP_HDRINCL, 1)
    echo.setsockopt(socket.IPPROTO_RAW, _ICMP_FILTER, struct.pack("@I", _ALL_BUT_ECHO_REPLY))
    echo.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    return echo


def open_probes(pairs: Sequence[tuple[str, str]], endpoints: dict[str, Any], step_ns: int) -> list[Probe]:
    """The probes of all pairs, with one socket for each sending node."""
    sockets = {a: open_echo_socket(endpoints[a]["netns"]) for a in sorted({a for a, _ in pairs})}
    probes = []
    for index, (a, b) in enumerate(pairs):
        identifier = index + 1
        source, destination = endpoints[a]["address"], endpoints[b]["address"]
        request = echo_request(source, destination, identifier)
        probes.append(Probe(a, b, identifier, request, sockets[a], destination, phase_ns(index, len(pairs), step_ns)))
    return probes


def _pairs(text: str) -> list[tuple[str, str]]:
    """The pairs in "a:b,c:d"."""
    return [(a, b) for a, _, b in (pair.partition(":") for pair in text.split(","))]


def _options(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="isl-emu prober", description=__doc__)
    parser.add_argument("--journal", type=Path, required=True, help="folder with endpoints.json")
    parser.add_argument("--t0-ns", type=int, required=True, help="start of the run, on its clock")
    parser.add_argument("--until-ns", type=int, required=True, help="when to stop sending, on its clock")
    parser.add_argument("--interval-ns", type=int, required=True, help="spacing of each pair's probes")
    parser.add_argument("--step-ns", type=int, help="spacing of the plan's instants (default: the interval)")
    parser.add_argument("--pairs", type=_pairs, required=True, help="a:b,c:d by node name")
    return parser.parse_args(words)


def _stop(signum: int, frame: FrameType | None) -> None:
    """End in order: every line that was written is whole, and a probe still on its way is neither answered nor lost."""
    raise SystemExit(0)


def main(words: Sequence[str] | None = None) -> None:
    """Run the probe process."""
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, _stop)
    options = _options(sys.argv[1:] if words is None else words)
    endpoints = json.loads((options.journal / "endpoints.json").read_text())
    step_ns = options.step_ns or options.interval_ns
    with Journal(options.journal / "probes.jsonl") as journal:
        probes = open_probes(options.pairs, endpoints, step_ns)
        clock, duration_ns = run_clock(options.journal), options.until_ns - options.t0_ns
        Prober(journal, probes, options.t0_ns, duration_ns, options.interval_ns, step_ns, clock).run()


if __name__ == "__main__":
    main()
