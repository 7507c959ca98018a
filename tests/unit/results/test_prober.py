"""Probes: when they are due, what they look like on the wire, and what comes of each."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP, UDP

from isl_emu.errors import MachineError
from isl_emu.parts.probes.packets import (
    FRAME_BYTE,
    ProbeArrival,
    ProbeRefusal,
    probe_packet,
    receive,
    refusal,
    send,
    with_number,
)
from isl_emu.parts.probes.prober import LOST_AFTER_NS, Probe, Prober, due_ns, phase_ns
from isl_emu.runs.clock import RunTimes
from isl_emu.runs.endpoints import PROBE_PORT as PORT
from isl_emu.runs.journal import Journal, read_journal

SO_TIMESTAMPNS, SO_TIMESTAMPING, IP_TTL, IP_RECVERR, MSG_ERRQUEUE = 35, 37, 2, 11, 0x2000
S = 1_000_000_000
ETHERNET_BYTE = 14
UTC_NS = 1_774_000_000 * S


@pytest.mark.parametrize("number", [0, 1, 65_535, 65_536, (1 << 32) - 1])
def test_a_packet_says_which_probe_it_is(number: int) -> None:
    packet = IP(with_number(probe_packet("10.0.0.1", "10.0.0.2", 7), number))
    assert (packet.src, packet.dst, packet.ttl) == ("10.0.0.1", "10.0.0.2", 255)
    assert packet[UDP].dport == PORT
    assert struct.unpack("!II8x", bytes(packet[UDP].payload)) == (7, number)
    told = packet[UDP].chksum
    del packet[UDP].chksum
    assert IP(bytes(packet))[UDP].chksum == told  # so a bit that flips on the way is found


def test_frame_is_as_long_as_the_plan_is_told() -> None:
    assert len(probe_packet("10.0.0.1", "10.0.0.2", 7)) + ETHERNET_BYTE == FRAME_BYTE


def stamp(kind: int, utc_ns: int) -> tuple[int, int, bytes]:
    """The ancillary message with a time of the kernel's."""
    return socket.SOL_SOCKET, kind, struct.pack("@qq", *divmod(utc_ns, S)) + bytes(32)


class FakeSocket:
    """Both kinds of sockets: it remembers what was sent, stamps it as sent now, and delivers what it is told to."""

    def __init__(self, now_utc_ns: Callable[[], int], error: OSError | None = None):
        self.sent: list[bytes] = []
        self.arriving: list[tuple[bytes, int, int]] = []  # payload, TTL and arrival
        self.refused: list[tuple[bytes, int, int]] = []  # payload, ICMP's type and code
        self.stamps = 0  # that it has not told
        self.neighbour = True
        self._now_utc_ns, self._error = now_utc_ns, error

    def sendto(self, packet: bytes, address: tuple[str, int]) -> None:
        if self._error:
            raise self._error
        self.sent.append(packet)
        self.stamps += self.neighbour

    def recvmsg(self, size: int, ancillary_size: int, flags: int = 0) -> tuple[bytes, list[Any], int, None]:
        if flags == MSG_ERRQUEUE:  # of a receiver
            if not self.refused:
                raise BlockingIOError
            payload, kind, code = self.refused.pop(0)
            error = struct.pack("=IBBBxII", 113, 2, kind, code, 0, 0) + struct.pack("=HH4B", 2, 0, 10, 0, 0, 9)
            return payload, [(0, IP_RECVERR, error + bytes(8))], flags, None
        if flags:
            if not self.stamps:
                raise BlockingIOError
            self.stamps -= 1
            return b"", [(0, 11, bytes(32)), stamp(SO_TIMESTAMPING, self._now_utc_ns())], flags, None
        if not self.arriving:
            raise ConnectionRefusedError
        payload, ttl, utc_ns = self.arriving.pop(0)
        return payload, [(0, IP_TTL, struct.pack("@i", ttl)), stamp(SO_TIMESTAMPNS, utc_ns)], 0, None


def payload(identifier: int, number: int) -> bytes:
    return struct.pack("!II8x", identifier, number)


def test_an_arrival_tells_the_links_that_were_crossed() -> None:
    receiver = FakeSocket(lambda: UTC_NS)
    receiver.arriving = [(payload(7, 3), 255, UTC_NS), (payload(7, 4), 251, UTC_NS + 5)]
    assert receive(receiver) == ProbeArrival(7, 3, UTC_NS, 1)  # no router on its way
    assert receive(receiver) == ProbeArrival(7, 4, UTC_NS + 5, 5)


def test_other_packets_are_no_probes() -> None:
    receiver = FakeSocket(lambda: UTC_NS)
    receiver.arriving = [(b"hello", 255, UTC_NS)]
    assert receive(receiver) is None


@pytest.mark.parametrize(
    ("kind", "code", "why"),
    [
        (3, 1, "no route"),
        (11, 0, "more links than its TTL"),
        (3, 4, "too long for the next link"),
        (12, 5, "ICMP type"),
    ],
)
def test_a_refusal_tells_which_probe_was_refused_and_by_whom(kind: int, code: int, why: str) -> None:
    receiver = FakeSocket(lambda: UTC_NS)
    receiver.refused = [(payload(7, 3), kind, code), (b"hello", 3, 1)]
    found = refusal(receiver)
    assert found == ProbeRefusal(7, 3, found.why, "10.0.0.9") and found.why.startswith(why)
    assert refusal(receiver) is None  # of something else
    assert receive(receiver) is None


def test_a_kernel_without_stamps_is_refused() -> None:
    receiver = FakeSocket(lambda: UTC_NS)
    receiver.recvmsg = lambda *_: (payload(7, 3), [(0, IP_TTL, struct.pack("@i", 255))], 0, None)
    with pytest.raises(MachineError, match="no time stamp"):
        receive(receiver)


def test_a_probe_whose_next_hop_is_no_neighbour_is_not_timed_by_the_one_before() -> None:
    now_ns = iter([UTC_NS, UTC_NS + S])
    sender = FakeSocket(lambda: next(now_ns))
    sender.neighbour = False
    with pytest.raises(OSError, match="the next hop is no neighbour"):
        send(sender, b"", "10.0.0.2")
    sender.neighbour, sender.stamps = True, 1  # it was found later, and that packet left
    assert send(sender, b"", "10.0.0.2") == UTC_NS + S


def test_probes_stay_away_from_instants_and_from_each_other() -> None:
    count, step_ns = 5, S
    for interval_ns in (S, 2 * S, 5 * S // 2):
        phases = [phase_ns(i, count, interval_ns, step_ns) for i in range(count)]
        due = [due_ns(n, phase, interval_ns, step_ns) for phase in phases for n in range(20)]
        assert all(0.2 <= t_ns % step_ns / step_ns <= 0.7 for t_ns in due)
        assert len(set(due)) == len(due)


def test_frequent_probes_of_many_directions_are_never_sent_at_once() -> None:
    phases = [phase_ns(i, 20, S // 4, S) for i in range(20)]
    due = sorted(due_ns(n, phase, S // 4, S) for phase in phases for n in range(8))
    assert min(after - before for before, after in zip(due, due[1:], strict=False)) > 6_000_000


def test_probes_more_frequent_than_instants_keep_their_interval() -> None:
    assert [due_ns(n, 20, 100, S) for n in range(3)] == [20, 120, 220]


class Bench:
    """A prober of one direction with fake sockets and a clock that the test sets, in ns since the start of the run."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, error: OSError | None = None):
        self.t_ns = -S
        monkeypatch.setattr(time, "monotonic_ns", lambda: self.t_ns)
        monkeypatch.setattr(time, "time_ns", lambda: self.t_ns + UTC_NS)
        self.sender, self.receiver = FakeSocket(time.time_ns, error), FakeSocket(time.time_ns)
        self._path = folder / "probes.jsonl"
        packet = probe_packet("10.0.0.1", "10.0.0.2", 1)
        self.probe = Probe("a", "b", 1, packet, self.sender, "10.0.0.2", S // 2)  # type: ignore[arg-type]
        self.prober = Prober(Journal(self._path), [self.probe], [self.receiver], RunTimes(0, 10 * S), S, S)  # type: ignore[list-item]
        self.prober._names = {"10.0.0.9": "c"}

    def at(self, t_ns: int, *arrivals: tuple[bytes, int]) -> None:
        """Let the prober do at a time what its loop does after waking up; each arrival is a payload and its time."""
        self.t_ns = t_ns
        for content, arrived_ns in arrivals:
            self.receiver.arriving.append((content, 253, arrived_ns + UTC_NS))
            self.prober._receive(self.receiver)  # type: ignore[arg-type]
        self.prober._send_due()
        self.prober._give_up_lost()

    @property
    def records(self) -> tuple[dict[str, object], ...]:
        return read_journal(self._path).records


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


def test_a_probe_is_timed_by_the_kernels_stamps(bench: Bench) -> None:
    bench.at(S // 2)
    bench.at(S, (payload(1, 0), S // 2 + 20_000_000))  # it arrived long before the prober was woken
    assert bench.records == (
        {"a": "a", "b": "b", "seq": 0, "t_send_ns": S // 2, "delay_ns": 20_000_000, "hops_seen": 3, "lost_by": None},
    )


def test_nothing_is_sent_before_it_is_due(bench: Bench) -> None:
    bench.at(S // 2 - 1)
    assert not bench.sender.sent


def test_silent_probe_is_lost_after_its_time(bench: Bench) -> None:
    bench.at(S // 2)
    bench.at(S // 2 + LOST_AFTER_NS - 1)
    assert not bench.records
    bench.at(S // 2 + LOST_AFTER_NS)
    assert bench.records[0]["delay_ns"] is None and bench.records[0]["seq"] == 0


def test_what_arrives_twice_or_too_late_or_from_strangers_is_ignored(bench: Bench) -> None:
    bench.at(S // 2)
    bench.at(S // 2 + 1, *((payload(*which), S // 2 + 1) for which in ((1, 0), (1, 0), (9, 0), (1, 5))))
    assert len(bench.records) == 1


def test_missed_times_are_skipped_not_sent_in_a_burst(bench: Bench) -> None:
    bench.at(4 * S)  # probes 0 to 3 were due
    assert len(bench.sender.sent) == 1
    bench.at(9 * S // 2)
    assert [packet[28:36] for packet in bench.sender.sent] == [payload(1, 0)[:8], payload(1, 4)[:8]]


def test_probe_that_the_kernel_refuses_is_lost_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path, monkeypatch, OSError(101, "Network is unreachable"))
    bench.at(S // 2)
    assert (bench.records[0]["delay_ns"], bench.records[0]["lost_by"]) == (None, "Network is unreachable at a")


def test_probe_that_a_node_refuses_is_lost_at_once_and_others_still_arrive(bench: Bench) -> None:
    bench.at(S // 2)
    bench.at(3 * S // 2)
    bench.receiver.refused = [(payload(1, 0), 3, 1), (payload(1, 0), 3, 1), (payload(9, 0), 3, 1), (b"?", 3, 1)]
    bench.at(2 * S, (payload(1, 1), 3 * S // 2 + 20_000_000))
    found = [(one["seq"], one["delay_ns"], one["lost_by"]) for one in bench.records]
    assert found == [(0, None, "no route at c"), (1, 20_000_000, None)]


def test_prober_ends_when_all_is_sent_and_has_arrived(bench: Bench) -> None:
    for number in range(10):
        bench.at(number * S + S // 2)
        bench.at(number * S + S // 2 + 1, (payload(1, number), number * S + S // 2 + 1))
    assert bench.prober._next_event_ns() is None
    assert len(bench.records) == 10
