"""Probes: when they are due, what they look like on the wire, and what comes of each reply."""

from __future__ import annotations

import socket
import struct
import time
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP

from isl_emu.results.echo import SEQ_COUNT, EchoReply, echo_request, read_reply, with_seq
from isl_emu.results.journal import Journal, read_journal
from isl_emu.results.prober import LOST_AFTER_NS, Probe, Prober, arrival_utc_ns, due_ns, phase_ns
from isl_emu.results.records import PROBE_FRAME_BYTE

S = 1_000_000_000
ETHERNET_BYTE = 14
UTC_NS = 1_774_000_000 * S


def checksum(content: bytes) -> int:
    """The Internet checksum (RFC 1071), which is 0 over content that carries a right one."""
    total = sum(struct.unpack(f"!{len(content) // 2}H", content))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


@pytest.mark.parametrize("seq", [0, 1, 255, 256, 4711, SEQ_COUNT - 1, SEQ_COUNT, SEQ_COUNT + 5])
def test_every_sequence_number_keeps_the_checksum_right(seq: int) -> None:
    packet = with_seq(echo_request("10.0.0.1", "10.0.0.2", 7), seq)
    assert checksum(packet[20:]) == 0
    assert (IP(packet)[ICMP].seq, IP(packet)[ICMP].id) == (seq % SEQ_COUNT, 7)


def test_frame_is_as_long_as_the_plan_is_told() -> None:
    assert len(echo_request("10.0.0.1", "10.0.0.2", 7)) + ETHERNET_BYTE == PROBE_FRAME_BYTE


def reply(identifier: int, seq: int, ttl: int = 62) -> bytes:
    return bytes(IP(src="10.0.0.2", dst="10.0.0.1", ttl=ttl) / ICMP(type="echo-reply", id=identifier, seq=seq) / b"x")


def test_reply_tells_the_links_that_it_crossed() -> None:
    assert read_reply(reply(7, 3, ttl=64)) == EchoReply(7, 3, 1)  # no router on its way
    assert read_reply(reply(7, 3, ttl=60)) == EchoReply(7, 3, 5)


def test_other_packets_are_no_replies() -> None:
    unreachable = IP(src="10.0.0.2", dst="10.0.0.1") / ICMP(type="dest-unreach") / IP(dst="10.0.0.3") / ICMP()
    assert read_reply(bytes(unreachable)) is None
    assert read_reply(echo_request("10.0.0.1", "10.0.0.2", 7)) is None


def test_probes_stay_away_from_instants_and_from_each_other() -> None:
    count, step_ns = 5, S
    for interval_ns in (S, 2 * S, 5 * S // 2):
        due = [due_ns(n, phase_ns(i, count, step_ns), interval_ns, step_ns) for i in range(count) for n in range(20)]
        assert all(0.2 <= t_ns % step_ns / step_ns <= 0.7 for t_ns in due)
        assert len(set(due)) == len(due)


def test_probes_more_frequent_than_instants_keep_their_interval() -> None:
    assert [due_ns(n, 20, 100, S) for n in range(3)] == [20, 120, 220]


class FakeSocket:
    """A socket that remembers what was sent, or refuses it."""

    def __init__(self, error: OSError | None = None):
        self.sent: list[tuple[bytes, tuple[str, int]]] = []
        self.replies: list[bytes] = []
        self._error = error

    def sendto(self, packet: bytes, address: tuple[str, int]) -> None:
        if self._error:
            raise self._error
        self.sent.append((packet, address))

    def recvmsg(self, size: int, ancillary_size: int) -> tuple[bytes, list[tuple[int, int, bytes]], int, None]:
        return self.replies.pop(0), [], 0, None


class Bench:
    """A prober with one pair, a fake socket and a clock that the test sets, in ns since the start of the run."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, error: OSError | None = None):
        self.t_ns = -S
        monkeypatch.setattr(time, "monotonic_ns", lambda: self.t_ns)
        monkeypatch.setattr(time, "time_ns", lambda: self.t_ns + UTC_NS)
        self.socket, self._path = FakeSocket(error), folder / "probes.jsonl"
        request = echo_request("10.0.0.1", "10.0.0.2", 1)
        self.probe = Probe("a", "b", 1, request, self.socket, "10.0.0.2", S // 2)  # type: ignore[arg-type]
        self.prober = Prober(Journal(self._path), [self.probe], 0, 10 * S, S, S)

    def at(self, t_ns: int, *replies: bytes) -> None:
        """Let the prober do at a time what its loop does after waking up."""
        self.t_ns = t_ns
        self.socket.replies += replies
        for _ in replies:
            self.prober._receive(self.socket)  # type: ignore[arg-type]
        self.prober._send_due()
        self.prober._give_up_lost()

    @property
    def records(self) -> tuple[dict[str, object], ...]:
        return read_journal(self._path).records


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


def test_answered_probe_is_written(bench: Bench) -> None:
    bench.at(S // 2)
    bench.at(S // 2 + 20_000_000, reply(1, 0))
    assert bench.records == (
        {"a": "a", "b": "b", "seq": 0, "t_send_ns": S // 2, "rtt_ns": 20_000_000, "hops_seen": 3},
    )


def test_nothing_is_sent_before_it_is_due(bench: Bench) -> None:
    bench.at(S // 2 - 1)
    assert not bench.socket.sent


def test_silent_probe_is_lost_after_its_time(bench: Bench) -> None:
    bench.at(S // 2)
    bench.at(S // 2 + LOST_AFTER_NS - 1)
    assert not bench.records
    bench.at(S // 2 + LOST_AFTER_NS)
    assert bench.records[0]["rtt_ns"] is None and bench.records[0]["seq"] == 0


def test_reply_that_comes_twice_or_too_late_or_from_strangers_is_ignored(bench: Bench) -> None:
    bench.at(S // 2)
    bench.at(S // 2 + 1, reply(1, 0), reply(1, 0), reply(9, 0), reply(1, 5))
    assert len(bench.records) == 1


def test_missed_times_are_skipped_not_sent_in_a_burst(bench: Bench) -> None:
    bench.at(4 * S)  # probes 0 to 3 were due
    assert len(bench.socket.sent) == 1
    bench.at(9 * S // 2)
    assert [IP(packet)[ICMP].seq for packet, _ in bench.socket.sent] == [0, 4]


def test_probe_that_the_kernel_refuses_is_lost_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path, monkeypatch, OSError("Network is unreachable"))
    bench.at(S // 2)
    assert bench.records[0]["rtt_ns"] is None


def test_prober_ends_when_all_is_sent_and_answered(bench: Bench) -> None:
    for number in range(10):
        bench.at(number * S + S // 2)
        bench.at(number * S + S // 2 + 1, reply(1, number))
    assert bench.prober._next_event_ns() is None
    assert len(bench.records) == 10


def test_reply_is_timed_by_the_kernel_if_it_gives_a_stamp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 1000 * S)
    stamp = (socket.SOL_SOCKET, 35, struct.pack("@qq", 999, 900_000_000))
    other = (socket.SOL_SOCKET, 1, b"")
    assert arrival_utc_ns([other, stamp]) == 1000 * S - 100_000_000
    assert arrival_utc_ns([other]) == 1000 * S
