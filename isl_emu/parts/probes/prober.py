"""The probe process: one-way probes between pairs of nodes, to compare measured with planned delay.

A socket stays in the network namespace in which it was made, so one process sends and receives for every node. Nothing
answers a probe: each direction is measured by itself, so delays and routes that differ by direction are seen.
"""

from __future__ import annotations

import heapq
import os
import selectors
import signal
import socket
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType, MappingProxyType
from typing import NamedTuple

from isl_emu.parts.probes.packets import open_receiver, open_sender, probe_packet, receive, refusal, send, with_number
from isl_emu.runs.clock import RunTimes, run_clock, run_parser
from isl_emu.runs.endpoints import Endpoint, read_endpoints
from isl_emu.runs.journal import Journal
from isl_emu.runs.loop import NanosecondSelector
from isl_emu.timebase import EXACT_TIME, Clock, MonotonicClock
from isl_emu.units import NS_PER_S

JOURNAL = "probes"
LOST_AFTER_NS = 3 * NS_PER_S
FIRST_PHASE, LAST_PHASE = 0.2, 0.7  # of a step: changes come at its beginning, and a probe needs some of its rest


class Sent(NamedTuple):
    """A probe on its way: when the first link got it, by the clock of the run and in UTC."""

    t_ns: int
    utc_ns: int


@dataclass
class Probe:
    """One direction of a pair that is probed, its next probe's number, and those on their way by their number.

    Args:
        crosses: its receiver is on another kernel, which writes down what arrives.
    """

    a: str
    b: str
    identifier: int
    packet: bytes
    sender: socket.socket
    destination: str
    phase_ns: int
    crosses: bool = False
    number: int = -1
    awaited: dict[int, Sent] = field(default_factory=dict)


def phase_ns(index: int, count: int, interval_ns: int, step_ns: int) -> int:
    """When direction `index` of `count` sends first: spread over the middle of a step, away from the changes.

    Probes that are more frequent are spread over their interval: no two directions ever send at once, since one would
    wait for the other on their first link.
    """
    return round(min(interval_ns, step_ns) * (FIRST_PHASE + (LAST_PHASE - FIRST_PHASE) * (index + 0.5) / count))


def due_ns(number: int, phase: int, interval_ns: int, step_ns: int) -> int:
    """When a pair's probe `number` is due, ns since the start of the run; away from instants if the interval allows."""
    whole_ns = step_ns if interval_ns >= step_ns else 1
    return number * interval_ns // whole_ns * whole_ns + phase


class Prober:
    """Sends every probe at its absolute time, and writes one journal line per probe that has arrived or is lost.

    Args:
        receivers: of all nodes to which probes go.
        times: when to begin and when to stop sending.
        interval_ns: spacing of each pair's probes.
        step_ns: spacing of the plan's instants.
        names: of nodes, by their addresses.
        strangers: ways by which probes come whose senders are on other kernels, by their identifiers.
    """

    def __init__(
        self,
        journal: Journal,
        probes: Sequence[Probe],
        receivers: Sequence[socket.socket],
        times: RunTimes,
        interval_ns: int,
        step_ns: int,
        clock: Clock | None = None,
        names: Mapping[str, str] = MappingProxyType({}),
        strangers: Mapping[int, tuple[str, str]] = MappingProxyType({}),
    ):
        self._strangers = strangers
        self._names = names
        self._journal, self._clock = journal, clock or MonotonicClock()
        self._receivers = receivers
        self._probes = {probe.identifier: probe for probe in probes}
        self._times = times
        self._interval_ns, self._step_ns = interval_ns, step_ns
        self._due: list[tuple[int, int]] = []  # a heap of (time, identifier)
        for probe in probes:
            self._schedule(probe)

    def run(self) -> None:
        """Probe until the end of the run and until no probe is on its way any more."""
        with NanosecondSelector() if EXACT_TIME in os.environ else selectors.DefaultSelector() as selector:
            for receiver in self._receivers:
                selector.register(receiver, selectors.EVENT_READ)
            try:
                while (wake_ns := self._next_event_ns()) is not None:
                    for key, _ in selector.select(self._clock.timeout_s(self._times.t0_ns + wake_ns)):
                        self._receive(key.fileobj)  # type: ignore[arg-type]
                    self._send_due()
                    self._give_up_lost()
            except SystemExit:  # told to end; of what crosses the other kernel knows the rest
                for probe in self._probes.values():
                    for number, sent in probe.awaited.items() if probe.crosses else ():
                        self._write_open(probe, number, sent, given_up=False)
                raise

    def _now_ns(self) -> int:
        return self._clock.now_ns() - self._times.t0_ns

    def _next_event_ns(self) -> int | None:
        """When something is to be sent or given up; None when there is nothing left."""
        events = [self._due[0][0]] if self._due else []
        if self._strangers and (last_ns := self._times.duration_ns + LOST_AFTER_NS) > self._now_ns():
            events.append(last_ns)
        first_sent = [next(iter(probe.awaited.values())) for probe in self._probes.values() if probe.awaited]
        return min(events + [sent.t_ns + LOST_AFTER_NS for sent in first_sent], default=None)

    def _schedule(self, probe: Probe) -> None:
        """Plan the pair's next probe; those whose time has passed are skipped, never sent in a burst."""
        passed = (self._now_ns() - probe.phase_ns) // self._interval_ns
        probe.number = max(probe.number, passed) + 1
        due = due_ns(probe.number, probe.phase_ns, self._interval_ns, self._step_ns)
        if due < self._times.duration_ns:
            heapq.heappush(self._due, (due, probe.identifier))

    def _send_due(self) -> None:
        while self._due and self._due[0][0] <= self._now_ns():
            probe = self._probes[heapq.heappop(self._due)[1]]
            self._send(probe)
            self._schedule(probe)

    def _send(self, probe: Probe) -> None:
        try:
            utc_ns = send(probe.sender, with_number(probe.packet, probe.number), probe.destination)
        except OSError as error:  # no route now: the probe is lost at once
            why = f"{error.strerror or error} at {probe.a}"
            self._write(probe, probe.number, self._now_ns(), None, None, why)
        else:
            t_ns = self._now_ns() - self._clock.own_ns(time.time_ns() - utc_ns)
            probe.awaited[probe.number] = Sent(t_ns, utc_ns)

    def _receive(self, receiver: socket.socket) -> None:
        while (refused := refusal(receiver)) is not None:
            probe = self._probes.get(refused.identifier)
            if probe and refused.number in probe.awaited:
                why = f"{refused.why} at {self._names.get(refused.address, refused.address)}"
                self._write(probe, refused.number, probe.awaited.pop(refused.number).t_ns, None, None, why)
        arrival = receive(receiver)
        probe = self._probes.get(arrival.identifier) if arrival else None
        if arrival and arrival.identifier in self._strangers:
            a, b = self._strangers[arrival.identifier]
            record = {"a": a, "b": b, "seq": arrival.number, "arrived_utc_ns": arrival.utc_ns}
            self._journal.append({**record, "hops_seen": arrival.hops})
        if arrival and probe and arrival.number in probe.awaited:
            sent = probe.awaited.pop(arrival.number)
            delay_ns = self._clock.own_ns(arrival.utc_ns - sent.utc_ns)
            self._write(probe, arrival.number, sent.t_ns, delay_ns, arrival.hops)

    def _give_up_lost(self) -> None:
        expired_ns = self._now_ns() - LOST_AFTER_NS
        for probe in self._probes.values():
            for number in [number for number, sent in probe.awaited.items() if sent.t_ns <= expired_ns]:
                sent = probe.awaited.pop(number)
                self._write_open(probe, number, sent, given_up=True)

    def _write_open(self, probe: Probe, number: int, sent: Sent, *, given_up: bool) -> None:
        """Write down one that nobody here has seen arrive; whether it has the other kernel knows, if it crosses."""
        more = {"utc_ns": sent.utc_ns, **({} if given_up else {"open": True})} if probe.crosses else {}
        self._write(probe, number, sent.t_ns, None, None, more=more)

    def _write(
        self,
        probe: Probe,
        number: int,
        t_send_ns: int,
        delay_ns: int | None,
        hops: int | None,
        why: str | None = None,
        more: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        record = {"a": probe.a, "b": probe.b, "seq": number, "t_send_ns": t_send_ns}
        self._journal.append({**record, "delay_ns": delay_ns, "hops_seen": hops, "lost_by": why, **more})


def ways_of(pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Both directions of each pair; a probe's identifier is the place of its own."""
    return [way for pair in pairs for way in (pair, pair[::-1])]


def open_probes(
    pairs: Sequence[tuple[str, str]],
    endpoints: Mapping[str, Endpoint],
    interval_ns: int,
    step_ns: int,
    here: Collection[str] | None = None,
) -> list[Probe]:
    """The probes of all pairs, each direction at times of its own, with one socket for each sending node.

    Args:
        here: the nodes that are on this kernel and send; all by default.
    """
    ways = ways_of(pairs)
    here = {name for way in ways for name in way} if here is None else here
    senders = {name: open_sender(endpoints[name].netns) for name in sorted(here)}
    probes = []
    for identifier, (a, b) in enumerate(ways):
        if a not in here:
            continue
        phase, destination = phase_ns(identifier, len(ways), interval_ns, step_ns), endpoints[b].address
        packet = probe_packet(endpoints[a].address, destination, identifier)
        probes.append(Probe(a, b, identifier, packet, senders[a], destination, phase, b not in here))
    return probes


def open_receivers(nodes: Iterable[str], endpoints: Mapping[str, Endpoint]) -> list[socket.socket]:
    """A receiving socket in each node."""
    return [open_receiver(endpoints[name].netns, endpoints[name].address) for name in nodes]


def _pairs(text: str) -> list[tuple[str, str]]:
    """The pairs in "a:b,c:d"."""
    return [(a, b) for a, _, b in (pair.partition(":") for pair in text.split(","))]


def _stop(signum: int, frame: FrameType | None) -> None:
    """End in order: every line is whole, and a probe still on its way has neither arrived nor is it lost."""
    raise SystemExit(0)


def main() -> None:
    """Run the probe process."""
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, _stop)
    parser = run_parser("isl_emu.parts.probes.prober", __doc__)
    parser.add_argument("--interval-ns", type=int, required=True, help="spacing of each pair's probes")
    parser.add_argument("--step-ns", type=int, required=True, help="spacing of the plan's instants")
    parser.add_argument("--pairs", type=_pairs, required=True, help="a:b,c:d by node name")
    parser.add_argument("--here", type=lambda text: text.split(","), required=True, help="nodes on this kernel: a,b")
    options = parser.parse_args()
    endpoints, step_ns = read_endpoints(options.journal), options.step_ns
    with Journal(options.journal / f"{JOURNAL}.jsonl") as journal:
        probes = open_probes(options.pairs, endpoints, options.interval_ns, step_ns, options.here)
        receivers = open_receivers(options.here, endpoints)
        clock, times = run_clock(options.journal), RunTimes.of(options)
        names = {endpoint.address: name for name, endpoint in endpoints.items()}
        ways, here = ways_of(options.pairs), set(options.here)
        strangers = {number: (a, b) for number, (a, b) in enumerate(ways) if b in here and a not in here}
        Prober(journal, probes, receivers, times, options.interval_ns, step_ns, clock, names, strangers).run()


if __name__ == "__main__":
    main()
