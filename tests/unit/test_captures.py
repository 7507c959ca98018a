"""Captures: what their files hold, what their filters let through, and which packets are the same."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from isl_emu import captures
from isl_emu.captures import Captured, one_way, same_key
from isl_emu.errors import ScenarioError
from isl_emu.files import write_json
from isl_emu.linkplan.plan import LinkPlan
from isl_emu.linkplan.plan_file import write_plan
from isl_emu.network.naming import ipv4_address, ipv6_address, mac_bytes
from isl_emu.nodes.filters import Instruction, attach_filter
from isl_emu.parts.captures import pcapng
from isl_emu.parts.captures.capturer import Hearing, PlacedEar, file_head
from isl_emu.parts.captures.filters import compile_filter, for_sent_from
from isl_emu.parts.captures.notes import PlanNotes, addresses_of, labels_of, without_way
from isl_emu.parts.captures.recording import (
    JOURNAL,
    PIECES_JOURNAL,
    Recording,
    merge_pieces,
    piece_of,
    start_ns_of,
)
from isl_emu.parts.captures.results import capture_reasons, captures_chapter, captures_section
from isl_emu.parts.captures.specification import (
    FOLDER,
    SPECIFICATIONS,
    Specification,
    headings,
    names_of,
    specified,
)
from isl_emu.runs.folder import RunFolder
from isl_emu.runs.journal import Journal, read_journal
from isl_emu.scenario.captures import LEAST_FILE_BYTE, Capture
from isl_emu.show.chapter import DataTable
from tests.plans import MS, SECOND, make_plan, make_routes
from tests.tshark import fields, needs_tshark

CHAIN = {(0, 1): 5 * MS, (1, 2): 7 * MS}
LATER = {(0, 1): 6 * MS, (1, 2): 7 * MS}
START_NS = 1_774_000_000 * SECOND
NAMES = {"p00s00": "10.0.0.1", "gs-x": "10.0.0.2"}


def plan_of(*instants: dict[tuple[int, int], int]) -> LinkPlan:
    return make_plan(3, [], instants, rate_scale=0.1)


def frame(source: int, destination: int, number: int = 0, ttl: int = 64, end: int = 0) -> bytes:
    """A UDP packet between nodes by their numbers, as it leaves a link end."""
    payload = UDP(sport=862, dport=862) / Raw(struct.pack("!I", number))
    packet = IP(src=ipv4_address(source), dst=ipv4_address(destination), ttl=ttl, id=1) / payload
    return bytes(Ether(src=mac_bytes(end).hex(":"), dst=mac_bytes(end ^ 1).hex(":")) / packet)


def written(path: Path) -> Path:
    ends = [
        pcapng.End("a:to-b", "laser", mac_bytes(0), 10**11, 65_535, "udp"),
        pcapng.End("b:to-a", "", mac_bytes(1), 7, 64),
    ]
    head = pcapng.head(["seed 1", "clock exact"], "isl-emu", ends, {"p00s00": [ipv4_address(0), ipv6_address(0)]})
    first = pcapng.packet(0, START_NS + 123_456_789, frame(0, 1), 46, outbound=True, comment="planned delay 5 ns")
    second = pcapng.packet(1, START_NS + 999_999_999, frame(0, 1, end=1)[:41], 46, outbound=False)
    counts = [pcapng.statistics(0, START_NS, START_NS + SECOND, 1, 2), pcapng.statistics(1, START_NS, START_NS, 1, 0)]
    path.write_bytes(head + first + second + b"".join(counts))
    return path


def test_a_file_holds_times_to_the_nanosecond_places_directions_and_comments(tmp_path: Path) -> None:
    first, second = captures.read(written(tmp_path / "x.pcapng"))
    assert (first.t_ns, second.t_ns) == (START_NS + 123_456_789, START_NS + 999_999_999)
    assert (first.node, first.peer, first.outbound, first.comment) == ("a", "b", True, "planned delay 5 ns")
    assert (second.node, second.peer, second.outbound, second.comment) == ("b", "a", False, None)
    assert (first.data, len(second.data), second.length) == (frame(0, 1), 41, 46)
    assert first.packet["UDP"].dport == 862


@needs_tshark
def test_tshark_reads_it_without_a_complaint(tmp_path: Path) -> None:
    path = written(tmp_path / "x.pcapng")
    names = "frame.time_epoch", "frame.interface_name", "ip.src_host", "frame.len", "frame.packet_flags_direction"
    assert fields(path, *names, "frame.comment") == [
        ["1774000000.123456789", "a:to-b", "p00s00", "46", "0x00000002", "planned delay 5 ns"],
        ["1774000000.999999999", "b:to-a", "p00s00", "46", "0x00000001", ""],
    ]


def accepts(program: Sequence[Instruction], data: bytes) -> int:
    """How much of some bytes comes through a socket with this program."""
    giving, taking = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with giving, taking:
        attach_filter(taking, program)
        giving.send(data)
        try:
            return len(taking.recv(1 << 16, socket.MSG_DONTWAIT))
        except BlockingIOError:
            return 0


def test_a_filter_is_done_by_the_kernel_and_knows_nodes_by_name() -> None:
    program = compile_filter("here", "udp and src host p00s00", NAMES, 40)
    assert accepts(program, frame(0, 1)) == 40
    assert accepts(program, frame(1, 0)) == 0
    assert accepts(compile_filter("here", "", NAMES, 20), frame(1, 0)) == 20


def test_at_a_tap_only_what_its_link_end_sends_is_heard() -> None:
    program = for_sent_from(mac_bytes(70_000), compile_filter("here", "udp", NAMES, 1000))
    assert accepts(program, frame(0, 1, end=70_000)) == len(frame(0, 1))
    assert [accepts(program, frame(0, 1, end=end)) for end in (70_001, 4464, 70_000 + (1 << 32))] == [0, 0, 0]


@pytest.mark.parametrize(
    ("text", "says"),
    [("udp and host example.org", "'example.org'"), ("port http", "'http'"), ("udp and", "libpcap says")],
)
def test_a_filter_that_asks_others_or_is_none_is_refused(text: str, says: str) -> None:
    with pytest.raises(ScenarioError, match=says):
        compile_filter("here", text, NAMES, 40)


def test_a_comment_stands_on_the_first_packet_of_a_pair_after_a_change() -> None:
    plan = plan_of(CHAIN, CHAIN, LATER, {(1, 2): 7 * MS})
    notes = PlanNotes(plan, make_routes(plan))
    said = [notes.on(0, True, t_ns, frame(0, 2)) for t_ns in (0, SECOND // 2, SECOND, 2 * SECOND, 2 * SECOND + 1)]
    link, path = "link p00s00 > p00s01: planned delay {} ns, rate 100000000 bit/s", "path p00s00 > p00s01 > p00s02"
    assert said[0] == f"instant 0, t = 0.000 s; {link.format(5 * MS)}; {path}: planned delay {12 * MS} ns"
    assert said[1:3] == [None, None]
    assert said[3] == f"instant 2, t = 2.000 s; {link.format(6 * MS)}; {path}: planned delay {13 * MS} ns"
    assert said[4] is None
    assert notes.on(0, True, 2 * SECOND, frame(0, 1)) is not None
    back = notes.on(0, False, 2 * SECOND, frame(2, 0))
    assert back is not None and "link p00s01 > p00s00" in back
    assert notes.on(0, True, 3 * SECOND, frame(0, 2)) == (
        "instant 3, t = 3.000 s; link p00s00 > p00s01: planned down; path none planned"
    )


def test_addresses_are_those_of_both_kinds_of_ip() -> None:
    six = bytes(Ether() / IPv6(src=ipv6_address(4), dst=ipv6_address(5)) / UDP())
    assert addresses_of(six) == (4, 5)
    assert addresses_of(frame(4, 5)) == (4, 5)
    assert addresses_of(bytes(60)) is None


def test_what_names_the_way_of_a_packet_is_taken_off_it():
    plain = frame(4, 5)
    labels = struct.pack("!II", 1003 << 12 | 255, 1000 << 12 | 0x100 | 255)
    labelled = plain[:12] + b"\x88\x47" + labels + plain[14:]
    routing = bytes([4, 4, 4, 1, 1, 0, 0, 0]) + bytes(32)  # two segments, IPv4 inside (RFC 8754)
    segmented = plain[:12] + b"\x86\xdd\x60" + bytes(5) + b"\x2b\xff" + bytes(32) + routing + plain[14:]
    assert [labels_of(one) for one in (plain, labelled, segmented)] == [0, 2, 0]
    assert without_way(labelled) == without_way(segmented) == without_way(plain) == plain
    assert addresses_of(labelled) == addresses_of(segmented) == (4, 5)
    for cut in range(14, len(segmented)):  # as a capture with a snap length keeps it
        assert len(without_way(segmented[:cut])) <= cut and len(without_way(labelled[:cut])) <= cut


def test_a_full_file_is_followed_by_another_and_the_oldest_is_removed(tmp_path: Path) -> None:
    plan = plan_of(CHAIN)
    routes = make_routes(plan)
    wish = Capture.model_validate({
        "name": "x", "link": ("p00s00", "p00s01"), "file_size": "2 MiB", "files": 2, "packets": 5000
    })  # fmt: skip
    what = specified(wish, plan)
    head = file_head(what, headings("test", 1, plan), names_of(plan, routes))
    data = frame(0, 1) + bytes(1400)
    with Journal(tmp_path / "captures.jsonl") as journal:
        ears = [PlacedEar(0, 0, True, None)]  # type: ignore[arg-type]
        recording = Recording(what, head, START_NS, journal, tmp_path, missed=lambda: {0: 3})
        hearing = Hearing(recording, PlanNotes(plan, routes), ears)
        recording.begin_file()
        while not recording.is_full:
            hearing.write(ears[0], recording.packets, data, len(data))
        recording.end_file(SECOND - 1)
    files = sorted(tmp_path.glob("*.pcapng"))
    assert [path.name for path in files] == ["x.3.pcapng", "x.4.pcapng"]
    assert all(path.stat().st_size <= LEAST_FILE_BYTE for path in files)
    lines = [record for record in read_journal(tmp_path / "captures.jsonl").records if record["node"] == "p00s00"]
    assert [line["file"] for line in lines] == ["x.pcapng", "x.2.pcapng", "x.3.pcapng", "x.4.pcapng"]
    assert sum(line["packets"] for line in lines) == 5000
    assert [line["dropped"] for line in lines] == [3, 3, 3, 3]
    kept = captures.read(files[0]) + captures.read(files[1])
    assert [one.t_ns - START_NS for one in kept] == list(range(kept[0].t_ns - START_NS, 5000))


@pytest.mark.parametrize("limits", [{"file_size": "2 MiB", "files": 2}, {"packets": 1501}])
def test_what_two_guests_heard_of_a_link_becomes_the_files_of_one(tmp_path: Path, limits: dict[str, Any]) -> None:
    """Packets of both ends pass at the same times, and one guest has missed some."""
    plan = plan_of(CHAIN)
    what = specified(Capture.model_validate({"name": "x", "link": ("p00s00", "p00s01"), **limits}), plan)
    head = file_head(what, headings("test", 1, plan), names_of(plan, make_routes(plan)))
    blocks = [
        (number, t_ns, pcapng.packet(number, start_ns_of(plan) + t_ns, bytes(1000), 1000, outbound=outbound))
        for t_ns in range(1000) for number in (0, 1) for outbound in (True, False)
    ]  # fmt: skip

    def record(run: RunFolder, missed: int, here: set[int], what: Specification, journal: str, folder: Path) -> None:
        folder.mkdir(parents=True)
        with Journal(run.journal / f"{journal}.jsonl") as lines:
            counts = [{number: missed for number in here}]
            recording = Recording(
                what, head, start_ns_of(plan), lines, folder, missed=lambda: counts.pop() if counts else {}
            )
            recording.begin_file()
            for number, t_ns, block in blocks:
                if number in here and not recording.is_full:
                    recording.write(number, t_ns, block, 1000)
            recording.end(SECOND)

    one, cut = RunFolder(tmp_path / "one"), [RunFolder(tmp_path / "cut", number) for number in (0, 1)]
    for guest in (one, *cut):
        guest.journal.mkdir(parents=True)
        write_json(guest.journal / SPECIFICATIONS, {"captures": [what.as_json()]})
    record(one, 0, {0, 1}, what, JOURNAL, one.path / FOLDER)
    write_plan(plan, cut[0].plan)
    for guest in cut:
        record(guest, guest.part, {guest.part}, piece_of(what), PIECES_JOURNAL, guest.journal / FOLDER)
    (cut[0].path / FOLDER).mkdir()
    merge_pieces(cut)
    names = {path.name for path in (one.path / FOLDER).iterdir()}
    assert names == {path.name for path in (cut[0].path / FOLDER).iterdir()} and len(names) == limits.get("files", 1)
    for name in names:
        assert captures.read(one.path / FOLDER / name) == captures.read(cut[0].path / FOLDER / name)
    told, expected = (read_journal(run.journal / f"{JOURNAL}.jsonl").records for run in (cut[0], one))
    assert sum(line["dropped"] for line in told) == 1
    assert [{**line, "dropped": 0} for line in told] == list(expected)
    assert {path.name for path in cut[1].journal.iterdir()} == {SPECIFICATIONS}


def test_of_a_piece_whose_writer_was_killed_what_is_whole_is_read(tmp_path: Path) -> None:
    path, found = written(tmp_path / "x.pcapng"), []
    for lost_byte in (0, 5):
        path.write_bytes(path.read_bytes()[: path.stat().st_size - lost_byte])
        with path.open("rb") as file:
            pcapng.read_head(file)
            found.append(list(pcapng.read_marks(file)))
    whole, torn = found
    assert torn == whole[:-1] and torn[0].utc_ns == START_NS + 123_456_789


@pytest.mark.parametrize(("direction", "ends"), [
    ("both", [(True, True), (True, True)]), ("there", [(False, True), (True, False)]),
    ("back", [(True, False), (False, True)]),
])  # fmt: skip
def test_directions_are_those_of_the_nodes_as_they_are_named(direction: str, ends: list[tuple[bool, bool]]) -> None:
    wish = Capture.model_validate({"name": "x", "link": ("p00s01", "p00s00"), "direction": direction})
    assert [(end.sent, end.arrived) for end in specified(wish, plan_of(CHAIN)).ends] == ends


def test_all_link_ends_of_a_node_are_captured_and_a_link_that_never_is_refused() -> None:
    found = specified(Capture(name="x", node="p00s01"), plan_of(CHAIN))
    assert [(end.node, end.peer, end.speed_bit_s) for end in found.ends] == [
        ("p00s01", "p00s00", 100_000_000), ("p00s01", "p00s02", 100_000_000)
    ]  # fmt: skip
    assert type(found).of_json(json.loads(json.dumps(found.as_json()))) == found
    with pytest.raises(ScenarioError, match="never has such a link"):
        specified(Capture(name="x", link=("p00s00", "p00s02")), plan_of(CHAIN))


def test_the_report_and_the_summary_name_files_and_what_was_missed() -> None:
    row = {"capture": "x", "file": "captures/x.pcapng", "node": "a", "peer": "b", "packets": 1234, "byte": 99_000}
    row |= {"dropped": 7, "t_first_ns": 0, "t_last_ns": SECOND}
    (shown,) = captures_chapter([row] * 25).items
    assert isinstance(shown, DataTable)
    assert shown.rows[0] == ("x", "x.pcapng", "a - b", "1,234", "99.0 kB", "0 us", "1.00 s", "7")
    assert "5 more" in shown.rest
    assert "... and 5 more in captures.parquet" in list(captures_section([row] * 25))[-1]


def at(t_ns: int, data: bytes, *, outbound: bool) -> Captured:
    node, peer = ("p00s00", "p00s01") if outbound else ("p00s01", "p00s00")
    return Captured(t_ns, node, peer, outbound, data, len(data), None)


def test_a_packet_is_found_again_whatever_its_way_changes() -> None:
    """TTL, checksums, ECN and Ethernet header; of equal ones the first is the first; one that is lost has no delay."""
    sent = [at(1000 * n, frame(0, 2, number), outbound=True) for n, number in enumerate([7, 8, 9, 9])]
    arrived = [at(t_ns, frame(0, 2, number, ttl=63, end=1), outbound=False) for t_ns, number in
               [(5000, 7), (7500, 9), (8500, 9), (9000, 1)]]  # fmt: skip
    found = one_way(sent, arrived).to_pylist()
    assert [row["delay_ns"] for row in found] == [5000, None, 5500, 5500]
    marked = bytes(Ether() / IP(src="10.0.0.1", dst="10.0.0.3", tos=3) / TCP(seq=9) / b"x")
    plain = bytes(Ether() / IP(src="10.0.0.1", dst="10.0.0.3", ttl=3) / TCP(seq=9, chksum=1) / b"x")
    assert same_key(marked) == same_key(plain)
    assert same_key(plain) != same_key(bytes(Ether() / IP(src="10.0.0.1", dst="10.0.0.3") / TCP(seq=8) / b"x"))


def test_what_is_no_capture_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.pcapng").write_bytes(b"no packets at all")
    with pytest.raises(ScenarioError, match="is no pcapng file"):
        captures.read(tmp_path / "x.pcapng")
    with pytest.raises(ScenarioError, match="has no captures"):
        captures.read(tmp_path)
    with pytest.raises(ScenarioError, match="cannot be read"):
        captures.read(tmp_path / "y.pcapng")


def test_what_was_missed_or_never_written_speaks_against_the_run() -> None:
    records: list[dict[str, str]] = []
    run: Any = SimpleNamespace(
        journal=lambda _: SimpleNamespace(records=records),
        scenario=SimpleNamespace(capture=[Capture(name="x", node="p00s00")]),
        execution=SimpleNamespace(error=None),
    )
    assert list(capture_reasons(run, [{"capture": "x", "dropped": 0}])) == []
    (missed,) = capture_reasons(run, [{"capture": "x", "dropped": 1_200}])
    assert "1,200 packets were missed" in missed
    (lacking,) = capture_reasons(run, [])
    assert "x has no complete file" in lacking
    records.append({"lost_tap": "p00s00"})
    (gone,) = capture_reasons(run, [{"capture": "x", "dropped": 0}])
    assert "what p00s00 sends was no longer seen" in gone
